"""All consumers of the hub: admission, the watch for those that take nothing, and the farewell."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import grpc

from event_hub import metrics
from event_hub.outbox import CloseReason, Outbox, OutboxConfig
from selvedge_common.comm import MessageStream, StatusError
from selvedge_common.logs import get_logger

log = get_logger("eventhub.consumers")

# A stalled consumer is noticed at most this fraction of the send timeout late, and no consumer is
# left alone for longer than so many seconds: an identity that expired still hears for that long.
WATCH_FRACTION = 0.1
WATCH_SECONDS = 1.0

# A consumer that is waited for and takes nothing for this many seconds is not waited for any more.
STALL_SECONDS = 0.1

# When too much waits for all consumers together, those that read have this many seconds to take it,
# and this is how often the hub looks whether they have.
ROOM_SECONDS = 1.0
LOOK_SECONDS = 0.01


class Consumers:
    """The outboxes of all open Chat streams.

    Args:
        limit: how many there may be (``peer.events.maxConsumers``).
        outbox: the bounds of each one's outbox.
        send_timeout: seconds a consumer may leave its stream without progress while events wait
            for it (``peer.events.sendtimeout``); Fabric 1.2 has the same bound on each delivery.
        total_bytes: how much may wait for all of them (``peer.events.outbox.totalBytes``). gRPC
            copies what it sends, so bytes that consumers share count for each.
    """

    def __init__(
        self, limit: int, outbox: OutboxConfig, send_timeout: float, total_bytes: int
    ) -> None:
        self._limit = limit
        self._outbox_config = outbox
        self._send_timeout = send_timeout
        self._total_bytes = total_bytes
        self._estimate = 0  # of the bytes that wait; never too low
        self._making_room = asyncio.Lock()
        self._open: set[Outbox] = set()
        self._closing = False
        self._relief = asyncio.Event()
        for reason in CloseReason:
            metrics.CONSUMERS_CLOSED.labels(reason=reason)
        metrics.OUTBOX_EVENTS.set_function(lambda: sum(o.queued_events for o in self))
        metrics.OUTBOX_BYTES.set_function(lambda: sum(o.waiting_bytes for o in self))

    def __iter__(self) -> Iterator[Outbox]:
        """Give the outboxes that are open now."""
        return iter(tuple(self._open))

    def __len__(self) -> int:
        """Count the open outboxes."""
        return len(self._open)

    def admit(self, stream: MessageStream) -> Outbox:
        """Give a new stream its outbox.

        Raises:
            StatusError: RESOURCE_EXHAUSTED when there are as many consumers as there may be,
                UNAVAILABLE when the hub is shutting down.
        """
        if self._closing:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, _farewell())
        if len(self._open) >= self._limit:
            reason = CloseReason.TOO_MANY_CONSUMERS
            metrics.CONSUMERS_CLOSED.labels(reason=reason).inc()
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{reason}: the event hub serves {self._limit} consumers already; "
                "try again later, or raise peer.events.maxConsumers",
            )
        outbox = Outbox(stream, self._outbox_config, on_relief=self._relief.set)
        self._open.add(outbox)
        metrics.CONSUMERS.set(len(self._open))
        return outbox

    def leave(self, outbox: Outbox) -> None:
        """Forget a consumer whose stream has ended, and count why."""
        self._open.discard(outbox)
        reason = outbox.closed or CloseReason.CLIENT_GONE
        metrics.CONSUMERS.set(len(self._open))
        metrics.CONSUMERS_CLOSED.labels(reason=reason).inc()
        metrics.EVENTS_ABANDONED.inc(outbox.discard())
        log.info("consumer left", reason=reason, peer=outbox.stream.peer, consumers=len(self))

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

    def crowded(self, size: int) -> bool:
        """Count `size` bytes that will wait, and tell whether that is too much in all."""
        self._estimate += size
        return self._estimate > self._total_bytes and self._too_much(size)

    async def make_room(self, size: int) -> None:
        """Return once `size` bytes more are not too much for all consumers together.

        Those that read have a moment to take what is there; after it the consumer that most waits
        for is closed, and the next one, until it is enough. The last one has its own bounds.
        """
        clock = asyncio.get_running_loop().time
        async with self._making_room:
            end = clock() + ROOM_SECONDS
            # Streams do not tell when they have sent something.
            while self._too_much(size) and clock() < end:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
            while self._too_much(size):
                largest = max(self._open, key=lambda outbox: outbox.waiting_bytes)
                largest.close(
                    CloseReason.SLOW_CONSUMER,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"more than {self._total_bytes} bytes are waiting for all clients of this hub, "
                    f"and most of them, {largest.waiting_bytes}, for this one; read faster, "
                    "register for less, or raise peer.events.outbox.totalBytes",
                )

    def _too_much(self, size: int = 0) -> bool:
        """Count what waits, and `size` that will; one consumer alone is never too much."""
        waiting = [bytes_ for outbox in self._open if (bytes_ := outbox.waiting_bytes)]
        self._estimate = sum(waiting) + size
        return self._estimate > self._total_bytes and len(waiting) > 1

    async def watch(self) -> None:
        """Close, for as long as it runs, who makes no progress for too long or has expired.

        Fabric 1.2 delivers nothing more once the session has expired (events/producer/events.go).
        """
        seen: dict[Outbox, tuple[int, float]] = {}
        pause = min(self._send_timeout * WATCH_FRACTION, WATCH_SECONDS)
        while True:
            await asyncio.sleep(pause)
            self._close_expired()
            seen = self._close_stalled(seen)

    def _close_expired(self) -> None:
        now = datetime.now(UTC)
        for outbox in self:
            if outbox.expires_at is not None and now > outbox.expires_at:
                outbox.close(
                    CloseReason.EXPIRED,
                    grpc.StatusCode.UNAUTHENTICATED,
                    "the certificate this client signed its last message with expired at "
                    f"{outbox.expires_at.isoformat()}; enrol again and connect anew",
                )

    def _close_stalled(
        self, before: dict[Outbox, tuple[int, float]]
    ) -> dict[Outbox, tuple[int, float]]:
        """Close who took nothing for the send timeout.

        Takes and gives, of those that something waits for, the bytes they had taken and since when.
        """
        seen: dict[Outbox, tuple[int, float]] = {}
        now = asyncio.get_running_loop().time()
        for outbox in self:
            if outbox.idle:
                continue
            taken, since = before.get(outbox, (-1, 0.0))
            if taken != outbox.taken_bytes:
                seen[outbox] = (outbox.taken_bytes, now)
                continue
            seen[outbox] = (taken, since)
            if now - since >= self._send_timeout:
                outbox.close(
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
        for outbox in self:
            outbox.finish(CloseReason.SHUTTING_DOWN, grpc.StatusCode.UNAVAILABLE, _farewell())


def _farewell() -> str:
    return "the event hub is shutting down; connect again"
