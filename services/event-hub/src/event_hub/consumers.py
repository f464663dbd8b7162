"""All consumers of the hub, whichever service they came to: admission, the watch for those that
take nothing, and the farewell."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial

import grpc

from event_hub import metrics
from event_hub.outbox import Outbox, OutboxConfig
from event_hub.room import Room
from event_hub.session import CloseReason, Service, Session
from event_hub.turns import Turns
from selvedge_common.comm import MessageStream, StatusError
from selvedge_common.comm.places import Places
from selvedge_common.logs import get_logger
from selvedge_common.protoutil.seek import client_certificate_hash

log = get_logger("eventhub.consumers")

# A stalled consumer is noticed at most this fraction of the send timeout late, and no consumer is
# left alone for longer than so many seconds: an identity that expired still hears for that long.
WATCH_FRACTION = 0.1
WATCH_SECONDS = 1.0

# A consumer that is waited for and takes nothing for this many seconds is not waited for any more.
# A reader on a busy machine may well take a tenth of a second for its next step.
STALL_SECONDS = 0.25

# When too much waits for all consumers together, those that read have this many seconds to take it,
# and this is how often the hub looks whether they have.
ROOM_SECONDS = 1.0
LOOK_SECONDS = 0.01

# When it has to be made, so much of what may wait is kept: or who does not read would hold up all
# others again with the next event.
KEPT_FRACTION = 0.75

# So much of what may wait for all consumers may be of those who read the past: they wait, while
# what happens now waits for nobody.
PAST_FRACTION = 0.5


class Consumers:
    """All open streams of consumers.

    A Chat stream is given its outbox by `admit`. Another service joins with a session of its own:

        with consumers.session(Service.DELIVER, stream) as session:
            ...

    Args:
        limit: how many there may be (``peer.events.maxConsumers``), half of them of one client's
            certificate.
        outbox: the bounds of the outbox of each Chat stream.
        send_timeout: seconds a consumer may leave its stream without progress while events wait
            for it (``peer.events.sendtimeout``); Fabric 1.2 has the same bound on each delivery.
        total_bytes: how much may wait for all of them (``peer.events.outbox.totalBytes``). gRPC
            copies what it sends, so bytes that consumers share count for each.

    Attributes:
        past: the part of that for those who read the past at their own pace, each of whom waits
            for room there before it sends.
        turns: whose turn it is among them.
        closed: how many streams have ended, by the reason.
    """

    def __init__(
        self, limit: int, outbox: OutboxConfig, send_timeout: float, total_bytes: int
    ) -> None:
        self._places = Places(limit, of_client=max(1, limit // 2))
        self._outbox_config = outbox
        self._send_timeout = send_timeout
        self._total_bytes = total_bytes
        self._estimate = 0  # of the bytes that wait; never too low
        self._making_room = asyncio.Lock()
        # Each with who has its place.
        self._open: dict[Session, bytes] = {}
        self._outboxes: set[Outbox] = set()
        self._closing = False
        self._relief = asyncio.Event()
        self.past = Room(int(total_bytes * PAST_FRACTION), self._count_waiting)
        self.turns = Turns()
        self.closed: Counter[CloseReason] = Counter()
        for reason in CloseReason:
            metrics.CONSUMERS_CLOSED.labels(reason=reason)
        for service in Service:
            metrics.CONSUMERS.labels(kind=service).set_function(partial(self._count, service))
        metrics.OUTBOX_EVENTS.set_function(lambda: sum(s.waiting_events for s in self))
        metrics.OUTBOX_BYTES.set_function(lambda: sum(s.waiting_bytes for s in self))

    def __iter__(self) -> Iterator[Session]:
        """Give the streams that are open now."""
        return iter(tuple(self._open))

    def __len__(self) -> int:
        """Count the open streams."""
        return len(self._open)

    def admit(self, stream: MessageStream) -> Outbox:
        """Give a new Chat stream its outbox. Raises StatusError, as `join` does."""
        outbox = Outbox(stream, self._outbox_config, on_relief=self._relief.set)
        self.join(outbox)
        self._outboxes.add(outbox)
        return outbox

    @contextlib.contextmanager
    def session(self, service: Service, stream: MessageStream) -> Iterator[Session]:
        """Have a stream of another service among the open ones. Raises StatusError, as `join` does.

        Where the service ends the stream itself it says why, as `session.closed`.
        """
        session = Session(service, stream)
        self.join(session)
        try:
            yield session
        finally:
            self.leave(session)

    def join(self, session: Session) -> None:
        """Take a new stream among the open ones.

        Raises:
            StatusError: RESOURCE_EXHAUSTED when there are as many consumers as there may be, or
                streams of this client, UNAVAILABLE when the hub is shutting down.
        """
        if self._closing:
            self._count_closed(CloseReason.SHUTTING_DOWN)
            raise StatusError(grpc.StatusCode.UNAVAILABLE, _farewell())
        client = client_certificate_hash(session.stream.auth_context())
        full = self._places.full_for(client)
        if full:
            reason = CloseReason.TOO_MANY_CONSUMERS
            self._count_closed(reason)
            whose = {
                "all": f"the event hub serves {self._places.limit} consumers already",
                "client": f"{self._places.of_client} streams of this client's certificate are open",
            }[full]
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{reason}: {whose}; try again later, or raise peer.events.maxConsumers",
            )
        self._places.take(client)
        self._open[session] = client

    def leave(self, session: Session) -> None:
        """Forget a consumer whose stream has ended, and count why."""
        self._places.give_back(self._open.pop(session))
        if isinstance(session, Outbox):
            self._outboxes.discard(session)
        reason = session.reason
        self._count_closed(reason)
        metrics.EVENTS_ABANDONED.inc(session.discard())
        log.info(
            "consumer left",
            reason=reason,
            service=session.service,
            peer=session.peer,
            consumers=len(self),
        )

    async def catch_up(self, behind: Iterable[Outbox]) -> None:
        """Wait until these consumers are not behind any more.

        None of them is waited for longer than it takes events, nor, until it has caught up, longer
        than its patience lasts: so a consumer that hardly reads costs the others next to nothing.
        """
        clock = asyncio.get_running_loop().time
        waiting = [outbox for outbox in behind if outbox.patience > 0]
        while waiting:
            taken = {outbox: outbox.taken_bytes for outbox in waiting}
            end = clock() + STALL_SECONDS
            while waiting and clock() < end:
                self._relief.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(end):
                        await self._relief.wait()
                waiting = [outbox for outbox in waiting if outbox.behind and not outbox.closed]
            for outbox in waiting:
                moved = outbox.taken_bytes != taken[outbox]
                outbox.patience = outbox.patience - STALL_SECONDS if moved else 0
            waiting = [outbox for outbox in waiting if outbox.patience > 0]

    def roomy(self, size: int) -> bool:
        """Count `size` bytes that will wait for many at once, if there is room for all of them."""
        if self._estimate + size > self._total_bytes:
            self._too_much()
            if self._estimate + size > self._total_bytes:
                return False
        self._estimate += size
        return True

    def crowded(self, size: int) -> bool:
        """Count `size` bytes that will wait, and tell whether that is too much in all."""
        self._estimate += size
        return self._estimate > self._total_bytes and self._too_much(size)

    async def make_room(self, size: int) -> None:
        """Return once `size` bytes more are not too much for all consumers together.

        Those that read have a moment to take what is there; after it the consumer that most waits
        for is closed, and the next one, until it is enough. The last one has its own bounds.
        """
        async with self._making_room:
            if not await self._waited_for_room(size):
                self._close_largest(size)

    async def _waited_for_room(self, size: int) -> bool:
        """Wait while consumers take what is there; whether it was enough."""
        clock = asyncio.get_running_loop().time
        taken, since = -1, clock()
        end = since + ROOM_SECONDS
        # Streams do not tell when they have sent something.
        while self._too_much(size):
            before, taken = taken, sum(outbox.taken_bytes for outbox in self._outboxes)
            if taken != before:
                since = clock()
            if clock() - since > STALL_SECONDS or clock() > end:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    def _close_largest(self, size: int) -> None:
        while self._too_much(size, KEPT_FRACTION):
            largest = max(self._outboxes, key=_burden, default=None)
            if largest is None or not _burden(largest):
                return
            largest.close(
                CloseReason.SLOW_CONSUMER,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"more than {self._total_bytes} bytes are waiting for all clients of this hub, "
                f"and most of them, {largest.waiting_bytes}, for this one; read faster, "
                "register for less, or raise peer.events.outbox.totalBytes",
            )

    def _too_much(self, size: int = 0, fraction: float = 1.0) -> bool:
        """Count what waits, and `size` that will; one consumer alone is never too much."""
        burdens = [burden for outbox in self._outboxes if (burden := _burden(outbox))]
        self._estimate = sum(burdens) + self.past.pending_bytes + size
        return self._estimate > self._total_bytes * fraction and len(burdens) > 1

    def _count_waiting(self, size: int) -> None:
        self._estimate += size

    async def watch(self) -> None:
        """Close, for as long as it runs, who makes no progress for too long or has expired.

        Fabric 1.2 delivers nothing more once the session has expired (events/producer/events.go).
        """
        seen: dict[Session, tuple[int, float]] = {}
        pause = min(self._send_timeout * WATCH_FRACTION, WATCH_SECONDS)
        while True:
            await asyncio.sleep(pause)
            self._close_expired()
            seen = self._close_stalled(seen)

    def _close_expired(self) -> None:
        now = datetime.now(UTC)
        for session in self:
            if session.expires_at is not None and now > session.expires_at:
                session.close(
                    CloseReason.EXPIRED,
                    grpc.StatusCode.UNAUTHENTICATED,
                    "the certificate this client signed its last message with expired at "
                    f"{session.expires_at.isoformat()}; enrol again and connect anew",
                )

    def _close_stalled(
        self, before: dict[Session, tuple[int, float]]
    ) -> dict[Session, tuple[int, float]]:
        """Close who took nothing for the send timeout.

        Takes and gives, of those that something waits for, the bytes they had taken and since when.
        """
        seen: dict[Session, tuple[int, float]] = {}
        now = asyncio.get_running_loop().time()
        for session in self:
            if session.idle:
                continue
            taken, since = before.get(session, (-1, 0.0))
            if taken != session.taken_bytes:
                seen[session] = (session.taken_bytes, now)
                continue
            seen[session] = (taken, since)
            if now - since >= self._send_timeout:
                session.close(
                    CloseReason.SEND_TIMEOUT,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "this client took none of the events sent to it for "
                    f"{self._send_timeout:g} s; read the stream, or raise "
                    "peer.events.sendtimeout",
                )
        return seen

    def farewell(self) -> None:
        """Admit nobody any more, and end every stream after what waits for it."""
        self._closing = True
        for session in self:
            session.finish(CloseReason.SHUTTING_DOWN, grpc.StatusCode.UNAVAILABLE, _farewell())

    def _count(self, service: Service) -> int:
        return sum(session.service is service for session in self._open)

    def _count_closed(self, reason: CloseReason) -> None:
        self.closed[reason] += 1
        metrics.CONSUMERS_CLOSED.labels(reason=reason).inc()


def _burden(outbox: Outbox) -> int:
    """What waits for a consumer of what happens now. What its stream holds is not of it until it is
    live on all channels: till then that has its place in the room for the past."""
    return outbox.queued_bytes if outbox.replaying else outbox.waiting_bytes


def _farewell() -> str:
    return "the event hub is shutting down; connect again"
