"""The room for those who read the past: what waits for them, bounded for all of them together."""

import asyncio
from collections.abc import Callable

from selvedge_common.protoutil import metrics
from selvedge_common.protoutil.responses import Sender, StalledStreams

# How often, in seconds, it is looked for room while somebody waits for it. Streams do not tell when
# they have sent something.
LOOK_SECONDS = 0.02

# Who has more than its share and takes nothing for so many seconds, while another one waits, is
# ended. Who has no more than its share holds up nobody.
STALL_SECONDS = 1.0

# One that has been sent its last message counts for so many seconds longer, until that is read.
LAST_SECONDS = 30.0

SETTING = "peer.events.outbox.totalBytes"


class Room:
    """A protoutil.responses.SendBound with an even share for each stream that there is.

    Each may fill its share without asking, so that nobody who reads is held up by those who do not,
    as long as its messages are no larger than the share. Beyond it streams get what others leave,
    in the order of asking. There one that does not read could hold up the others: it is ended when
    it has taken nothing for a while in which another one waited.

    Args:
        max_bytes: the bound. Shares that were larger, when there were fewer streams, may exceed it
            until they are read.
        count: is told of each message's bytes before it is sent.
        stall: seconds that one which holds up another one may take nothing.
    """

    def __init__(
        self, max_bytes: int, count: Callable[[int], None], stall: float = STALL_SECONDS
    ) -> None:
        self.patience = LAST_SECONDS
        self._max_bytes = max_bytes
        self._share = max_bytes
        self._count_sent = count
        self._streams: set[Sender] = set()
        self._stalled = StalledStreams(stall, SETTING)
        self._estimate = 0  # of the bytes that wait; never too low
        self._waiting: dict[asyncio.Future[None], tuple[Sender, int]] = {}
        self._looking: asyncio.Task[None] | None = None
        metrics.deliver_pending_bytes.set_function(self._count)

    @property
    def pending_bytes(self) -> int:
        """What waits, as far as it is within the bound."""
        return min(self._count(), self._max_bytes)

    def join(self, stream: Sender) -> None:
        """Count a stream from now on, and give it a share."""
        self._streams.add(stream)
        self._divide()

    def leave(self, stream: Sender) -> None:
        """Count a stream no longer."""
        self._streams.discard(stream)
        self._divide()

    def take(self, stream: Sender, size: int) -> bool:
        """Whether `stream` may send `size` bytes now; they count at once."""
        return self._has_share(stream, size) or (not self._waiting and self._has_more(stream, size))

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
        self._stalled.forget()
        while self._waiting:
            await asyncio.sleep(LOOK_SECONDS)
            self._give()
            self._end_stalled()
        self._looking = None

    def _give(self) -> None:
        first = True
        for granted, (stream, size) in tuple(self._waiting.items()):
            if self._has_share(stream, size) or (first and self._has_more(stream, size)):
                del self._waiting[granted]
                if not granted.done():
                    granted.set_result(None)
            else:
                # What is left over goes by the order of asking, a share does not.
                first = False

    def _end_stalled(self) -> None:
        """End who takes nothing; but nobody for its own sake."""
        waiting = {stream for stream, _ in self._waiting.values()}
        others = self._streams - waiting if len(waiting) == 1 else self._streams
        if waiting:
            self._stalled.end(others, self._share)

    def _has_share(self, stream: Sender, size: int) -> bool:
        if stream.pending_bytes + size > self._share:
            return False
        self._grant(stream, size)
        return True

    def _has_more(self, stream: Sender, size: int) -> bool:
        if self._estimate + size > self._max_bytes:
            self._estimate = self._count()
        if self._estimate and self._estimate + size > self._max_bytes:
            return False
        self._grant(stream, size)
        return True

    def _grant(self, stream: Sender, size: int) -> None:
        self._stalled.given(stream)
        self._estimate += size
        self._count_sent(size)

    def _count(self) -> int:
        return sum(stream.pending_bytes for stream in self._streams)

    def _divide(self) -> None:
        self._share = self._max_bytes // max(1, len(self._streams))
