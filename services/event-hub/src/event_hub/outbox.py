"""One bounded outbox per consumer, so that a consumer which does not read is nobody else's trouble.

An event goes straight to the consumer's stream while the stream takes it. What the stream does not
take waits here, bounded in events and in bytes; past the bound the consumer is closed. There is no
task per message, and none at all for a consumer that keeps up.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from event_hub.session import CloseReason, Service, Session
from selvedge_common.comm import MessageStream

# How long, in seconds, the hub may wait for one consumer until that has caught up again.
PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class OutboxConfig:
    """How much may wait for one consumer (``peer.events.outbox``).

    Args:
        max_events: how many events.
        max_bytes: how many bytes of events; one event that is larger alone may still wait alone.
        max_event_bytes: how large one may be at all (``peer.events.maxSendMsgSize``).
    """

    max_events: int
    max_bytes: int
    max_event_bytes: int


class Outbox(Session):
    """What one Chat consumer has yet to take.

    Args:
        stream: the consumer's stream; the outbox is its only sender, and sends until it is full.
        config: the bounds.
        on_relief: called when the consumer stops being behind, or is closed.

    Attributes:
        replaying: channels whose past the consumer has yet to get; what happens there now is not
            for it until then.
        patience: how long the hub still waits for this consumer, in seconds, until it catches up.
    """

    def __init__(
        self,
        stream: MessageStream,
        config: OutboxConfig,
        on_relief: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(Service.CHAT, stream)
        self.replaying: set[str] = set()
        self.patience = PATIENCE_SECONDS
        self._config = config
        self._max_event_bytes = config.max_event_bytes
        self._on_relief = on_relief
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._pump: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether another event would have to wait."""
        return bool(self._queue) or self.stream.full

    @property
    def waiting_events(self) -> int:
        """How many events wait, besides those that the stream holds."""
        return len(self._queue)

    @property
    def queued_bytes(self) -> int:
        """How many bytes wait, not counting what the stream holds."""
        return self._queued_bytes

    @property
    def waiting_bytes(self) -> int:
        """How many bytes the transport has yet to take; none once the consumer is closed, but for
        what its stream still sends."""
        return self.stream.pending_bytes + (0 if self.closed else self._queued_bytes)

    @property
    def idle(self) -> bool:
        """Whether everything was taken by the transport."""
        return not self._queue and not self.stream.pending_bytes

    @property
    def behind(self) -> bool:
        """Whether more than half of a bound is used up."""
        return (
            2 * len(self._queue) > self._config.max_events
            or 2 * self._queued_bytes > self._config.max_bytes
        )

    def offer(self, message: bytes) -> bool:
        """Take a serialised event for the consumer, and tell whether it keeps up.

        Never waits. A consumer whose outbox is full is closed as SLOW_CONSUMER, and one that an
        event is too large for as EVENT_TOO_LARGE, since leaving it out would be silent; one that is
        closed already is offered to in vain.
        """
        stream, size = self.stream, len(message)
        # Nearly always; it costs little more than the sending.
        if not (self._queue or self.closed or stream.full) and size <= self._max_event_bytes:
            self.delivered += 1
            self._sent_bytes += size
            stream.send(message)
            return True
        return self._have_wait(message)

    async def drained(self) -> None:
        """Return once the stream takes more than what waits here, or has ended."""
        while self.full and not self.closed and not self.stream.closed:
            await self.stream.drained()
            # What waits here goes first.
            await asyncio.sleep(0)

    def close(self, reason: CloseReason, code: grpc.StatusCode, sentence: str) -> None:
        """End the stream at once and drop what waits; the first reason given stands."""
        super().close(reason, code, sentence)
        self._on_relief()

    def finish(self, reason: CloseReason, code: grpc.StatusCode, sentence: str = "") -> None:
        """End the stream once the consumer has taken everything that waits, or had the stream's
        flush timeout for it."""
        while self._queue and not self.closed:
            self._send_first()
        super().finish(reason, code, sentence)
        self._on_relief()

    def discard(self) -> int:
        """Forget what waits, after the stream has ended; gives how many events that were."""
        abandoned = len(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        if self._pump is not None:
            self._pump.cancel()
        return abandoned

    def _have_wait(self, message: bytes) -> bool:
        if self.closed:
            return True
        if len(message) > self._max_event_bytes:
            self.close(
                CloseReason.EVENT_TOO_LARGE,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"an event for this client has {len(message)} bytes, above the limit of "
                f"{self._max_event_bytes}; register for less, or raise "
                "peer.events.maxSendMsgSize",
            )
            return True
        if not self._has_room_for(message):
            self.close(
                CloseReason.SLOW_CONSUMER,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{len(self._queue)} events of {self._queued_bytes} bytes are waiting and this "
                "client does not read them fast enough; read faster, register for less, or raise "
                "peer.events.outbox.maxEvents and maxBytes",
            )
            return True
        self._queue.append(message)
        self._queued_bytes += len(message)
        if self._pump is None:
            self._pump = asyncio.create_task(self._pump_queue(), name="outbox")
        return not self.behind

    def _has_room_for(self, message: bytes) -> bool:
        if not self._queue:
            return True
        return (
            len(self._queue) < self._config.max_events
            and self._queued_bytes + len(message) <= self._config.max_bytes
        )

    def _send_first(self) -> None:
        message = self._queue.popleft()
        self._queued_bytes -= len(message)
        self.send(message)

    async def _pump_queue(self) -> None:
        """Move events to the stream as it takes them; ends with the queue."""
        while self._queue and not self.closed and not self.stream.closed:
            await self.stream.drained()
            # A stream that ends drops what it holds, which looks as if the consumer had read. What
            # waits here is not for it any more: if the consumer has gone, the stream's handler
            # discards it, and this task, within this turn of the loop.
            await asyncio.sleep(0)
            was_behind = self.behind
            while self._queue and not self.closed and not self.stream.full:
                self._send_first()
            if was_behind and not self.behind:
                self.patience = PATIENCE_SECONDS
                self._on_relief()
        self._pump = None
