"""The room for those who read the past: what waits for them, bounded for all of them together."""

import asyncio
from collections.abc import Callable

from selvedge_common.protoutil.responses import Backlog, Sender

# How often, in seconds, it is looked for room while somebody waits for it. Streams do not tell when
# they have sent something.
LOOK_SECONDS = 0.02

SETTING = "peer.events.outbox.totalBytes"


class Room(Backlog):
    """Bounds the bytes that wait in the streams of those who read the past at their own pace.

    Each has an even share and may fill it without asking, so that nobody who reads is held up by
    those who do not. Beyond its share it may use what others leave, in the order of asking. Who
    takes nothing is closed by the send timeout, so room comes free in the end.

    Args:
        max_bytes: the bound. Shares that were larger, when there were fewer streams, may exceed it
            until they are read.
        count: is told of each message's bytes before it is sent.
    """

    def __init__(self, max_bytes: int, count: Callable[[int], None]) -> None:
        super().__init__(max_bytes, 1, setting=SETTING)
        self._count_sent = count
        self._waiting: dict[asyncio.Future[None], tuple[Sender, int]] = {}
        self._looking: asyncio.Task[None] | None = None

    @property
    def pending_bytes(self) -> int:
        """What waits, as far as it is within the bound."""
        return min(self._count(), self._max_bytes)

    def join(self, stream: Sender) -> None:
        """Count a stream from now on, and give it a share."""
        super().join(stream)
        self._divide()

    def leave(self, stream: Sender) -> None:
        """Count a stream no longer."""
        super().leave(stream)
        self._divide()

    def take(self, stream: Sender, size: int) -> bool:
        """Whether `stream` may send `size` bytes now; they count at once."""
        return self._has_share(stream, size) or (not self._waiting and self._has_more(size))

    async def wait_for(self, stream: Sender, size: int) -> None:
        """Return once `stream` may send `size` bytes; they count at once."""
        granted = asyncio.get_running_loop().create_future()
        self._waiting[granted] = (stream, size)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="room")
        try:
            await granted
        finally:
            self._waiting.pop(granted, None)

    async def _look(self) -> None:
        """Give room to those who wait, for as long as anybody does."""
        while self._waiting:
            await asyncio.sleep(LOOK_SECONDS)
            first = True
            for granted, (stream, size) in tuple(self._waiting.items()):
                if self._has_share(stream, size) or (first and self._has_more(size)):
                    del self._waiting[granted]
                    if not granted.done():
                        granted.set_result(None)
                else:
                    # What is left over goes by the order of asking, a share does not.
                    first = False
        self._looking = None

    def _has_share(self, stream: Sender, size: int) -> bool:
        if stream.pending_bytes + size > self._share:
            return False
        self._grant(size)
        return True

    def _has_more(self, size: int) -> bool:
        if self._estimate + size > self._max_bytes:
            self._estimate = self._count()
        if self._estimate and self._estimate + size > self._max_bytes:
            return False
        self._grant(size)
        return True

    def _grant(self, size: int) -> None:
        self._estimate += size
        self._count_sent(size)

    def _divide(self) -> None:
        self._share = self._max_bytes // max(1, len(self._streams))
