"""What Deliver sends, made once for all who read it, and bounded while it waits for them."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple, Protocol, TypeAlias

import grpc

from selvedge_common.logs import get_logger
from selvedge_common.protoutil import metrics
from selvedge_common.protoutil.block_events import filtered_block
from selvedge_common.protoutil.blocks import parse_block
from selvedge_common.protoutil.errors import BlockUnavailable, MalformedMessage
from selvedge_common.protoutil.live_readers import LiveReaders
from selvedge_common.protoutil.wire import length_delimited, marshal
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import events_pb2

# Responses that are remembered, beside those that still wait for a reader.
REMEMBERED_BYTES = 16 * 1024 * 1024

# What one read brings at most, unless a single block is larger.
AHEAD_BYTES = 1024 * 1024
AHEAD_BLOCKS = 128
# Of what is remembered, the part that readers in different places have read ahead. The rest is for
# what they share, and for blocks larger than what was left to them.
_AHEAD_SHARE = 4
# Reads of one kind of response at a time: one is done while another's blocks are made and sent.
_READS = 2
# A response is made of a block in memory at once, unless that would take a while.
_AT_ONCE_BYTES = 1024 * 1024

# How often, in seconds, a stream looks whether there is room again, the first in the queue only.
_LOOK_SECONDS = 0.02

_log = get_logger("common.deliver")

_Found: TypeAlias = "Mapping[int, bytes | BlockUnavailable]"
MakeResponse: TypeAlias = Callable[[bytes], bytes]
"""Makes a marshalled DeliverResponse out of a marshalled block; raises MalformedBlock."""


class BlockSource(Protocol):
    """Who has the blocks of a channel."""

    @property
    def height(self) -> int:
        """How many blocks there are; the newest has the number one below."""

    def held(self, number: int) -> bytes | None:
        """Give the marshalled block `number`, which is below `height`, if it is in memory."""

    async def read(
        self, first: int, last: int, max_bytes: int, make: MakeResponse
    ) -> Sequence[bytes]:
        """Give what `make` makes of block `first` and of those that follow it.

        The first block is given in any case. More are, up to `last`, if that costs little, until
        they have `max_bytes` together. `make` takes long for a large block: it is called where
        that holds up nobody.

        Raises BlockUnavailable when the first one cannot be given, and what `make` raises for it.
        """

    async def wait_for(self, height: int) -> None:
        """Return once `self.height` is at least `height`."""


class ResponseSource(Protocol):
    """The responses with a channel's blocks, of one kind: what the Deliver loop sends.

    Attributes:
        live: who has been sent all there is.
    """

    live: LiveReaders

    @property
    def height(self) -> int:
        """How many blocks there are."""

    def remembered(self, number: int) -> bytes | None:
        """Give the response with block `number`, which is below `height`, if it is in memory."""

    async def fetch(self, number: int, last: int) -> bytes:
        """Give the response with block `number`, which is below `height`, wherever it is.

        The reader goes on to `last`, if it goes on. Raises BlockUnavailable.
        """

    async def wait_for(self, height: int) -> None:
        """Return once `self.height` is at least `height`."""


class Sender(Protocol):
    """What bounding asks of a stream."""

    @property
    def peer(self) -> str:
        """The client's address, for the log."""

    @property
    def pending_bytes(self) -> int:
        """Bytes sent and not yet taken by the transport."""

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        """End the stream at once."""


class SendBound(Protocol):
    """Bounds the bytes that wait for the readers of many streams, for all of them together.

    gRPC copies what it sends, so bytes that readers share are counted for each.

    Attributes:
        patience: seconds that a stream which has been sent its last message still counts, at most,
            while that is not read.
    """

    patience: float

    def join(self, stream: Sender) -> None:
        """Count a stream from now on."""

    def leave(self, stream: Sender) -> None:
        """Count a stream no longer."""

    def take(self, stream: Sender, size: int) -> bool:
        """Whether `stream` may send `size` bytes now; they count at once."""

    async def wait_for(self, stream: Sender, size: int) -> None:
        """Return once `stream` may send `size` bytes; they count at once."""


def block_response(block: bytes) -> bytes:
    """Frame a marshalled block as a DeliverResponse, the peer's or the orderer's, unparsed."""
    return length_delimited(events_pb2.DeliverResponse.BLOCK_FIELD_NUMBER, block)


def filtered_block_response(block: bytes) -> bytes:
    """Make the DeliverResponse with the filtered form of a marshalled block."""
    return length_delimited(
        events_pb2.DeliverResponse.FILTERED_BLOCK_FIELD_NUMBER,
        marshal(filtered_block(parse_block(block))),
    )


def private_data_response(block: bytes) -> bytes:
    """Frame a marshalled block as the DeliverResponse with a block and no private data of it."""
    return length_delimited(
        events_pb2.DeliverResponse.BLOCK_AND_PRIVATE_DATA_FIELD_NUMBER,
        length_delimited(events_pb2.BlockAndPrivateData.BLOCK_FIELD_NUMBER, block),
    )


class _Read(NamedTuple):
    """A read that is under way; it brings block `first`, and of those that follow it some."""

    first: int
    task: asyncio.Task[_Found]


class Responses:
    """The responses with a source's blocks, of one kind; all their readers share the bytes.

    What many want, the blocks that came last, is given without waiting. The others are read, some
    ahead, by one read for all who want them meanwhile.

    Args:
        source: the blocks.
        make: makes the response out of a marshalled block.
        max_bytes: how much is remembered of what was made last; the last one in any case.

    Attributes:
        live: who has been sent all there is.
    """

    def __init__(
        self,
        source: BlockSource,
        make: MakeResponse = block_response,
        max_bytes: int = REMEMBERED_BYTES,
    ) -> None:
        self.live = LiveReaders(self)
        self._source = source
        self._make = make
        self._max_bytes = max_bytes
        self._made: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        # By each number that it may bring.
        self._reads: dict[int, _Read] = {}
        self._places = asyncio.Semaphore(_READS)
        # What was read ahead and nobody has asked for yet: the first number of its read, and how
        # many of that read there are.
        self._ahead: dict[int, int] = {}
        self._ahead_of: Counter[int] = Counter()

    @property
    def height(self) -> int:
        """How many blocks there are."""
        return self._source.height

    async def wait_for(self, height: int) -> None:
        """Return once `self.height` is at least `height`."""
        await self._source.wait_for(height)

    def remembered(self, number: int) -> bytes | None:
        """Give the marshalled DeliverResponse with block `number`, below `height`, if it is here.

        Raises BlockUnavailable.
        """
        made = self._made.get(number)
        if made is not None:
            self._made.move_to_end(number)
            self._is_ahead_no_longer(number)
            return made
        block = self._source.held(number)
        if block is None or len(block) > _AT_ONCE_BYTES:
            return None
        try:
            made = self._make(block)
        except MalformedMessage as error:
            raise _malformed(number, error) from error
        self._remember(number, made)
        return made

    async def fetch(self, number: int, last: int) -> bytes:
        """Give the marshalled DeliverResponse with block `number`, below `height`, by reading it.

        Blocks up to `last` may be read ahead. Raises BlockUnavailable.
        """
        disappointed = False
        while True:
            made = self.remembered(number)
            if made is not None:
                return made
            reading = self._reads.get(number)
            # A read brings its first block in any case, and fewer of the others the more there is
            # to read: who waited for one in vain would else do so again and again, behind a reader
            # that is a little before it.
            if reading is None or (disappointed and reading.first != number):
                reading = self._begin_read(number, last)
            # Shielded: it goes on for others when this reader leaves.
            found = (await asyncio.shield(reading.task)).get(number)
            if isinstance(found, BlockUnavailable):
                raise found
            if found is not None:
                return found
            disappointed = True

    def _begin_read(self, first: int, last: int) -> _Read:
        end = min(last, self.height - 1, first + AHEAD_BLOCKS - 1)
        following = takewhile(self._is_missing, range(first + 1, end + 1))
        numbers = [first, *following]
        reading = _Read(first, asyncio.create_task(self._read(numbers)))
        self._reads.update(dict.fromkeys(numbers, reading))
        return reading

    def _is_missing(self, number: int) -> bool:
        return number not in self._made and number not in self._reads

    async def _read(self, numbers: Sequence[int]) -> _Found:
        first, last = numbers[0], numbers[-1]
        try:
            async with self._places:
                made = await self._source.read(first, last, self._ahead_bytes(), self._make)
        except BlockUnavailable as error:
            return {first: error}
        except MalformedMessage as error:
            return {first: _malformed(first, error)}
        finally:
            for number in numbers:
                # Another read may have begun for one of them meanwhile.
                if (reading := self._reads.get(number)) and reading.first == first:
                    del self._reads[number]
        found = dict(zip(numbers, made, strict=False))
        for number, response in found.items():
            if number != first and number not in self._made:
                self._ahead[number] = first
                self._ahead_of[first] += 1
            self._remember(number, response)
        return found

    def _ahead_bytes(self) -> int:
        """The more readers are in different places the less, or it is gone when they come to it."""
        return min(AHEAD_BYTES, self._max_bytes // _AHEAD_SHARE // (1 + len(self._ahead_of)))

    def _remember(self, number: int, response: bytes) -> None:
        if number in self._made:
            return
        self._made[number] = response
        self._bytes += len(response)
        while self._bytes > self._max_bytes and len(self._made) > 1:
            oldest, forgotten = self._made.popitem(last=False)
            self._bytes -= len(forgotten)
            self._is_ahead_no_longer(oldest)

    def _is_ahead_no_longer(self, number: int) -> None:
        first = self._ahead.pop(number, None)
        if first is not None:
            self._ahead_of[first] -= 1
            if not self._ahead_of[first]:
                del self._ahead_of[first]


def _malformed(number: int, error: MalformedMessage) -> BlockUnavailable:
    return BlockUnavailable(
        common_pb2.INTERNAL_SERVER_ERROR, f"Block {number} cannot be delivered: {error}"
    )


class StalledStreams:
    """Finds the streams that take nothing while others wait for room, and ends them: or readers
    that do not read would hold up all the others for ever.

    Args:
        patience: seconds.
        setting: where the bound comes from, for the sentence.
    """

    def __init__(self, patience: float, setting: str) -> None:
        self._patience = patience
        self._setting = setting
        # What waited for each, and since when it is that much.
        self._seen: dict[Sender, tuple[int, float]] = {}
        self._next_look = 0.0

    def end(self, streams: Iterable[Sender], share: int) -> None:
        """End those for which more than `share` bytes wait, the same for as long as the patience.

        To be called again and again while somebody waits. It costs little until the next look is
        due: a tenth of the patience after the last.
        """
        now = asyncio.get_running_loop().time()
        if now < self._next_look:
            return
        self._next_look = now + self._patience / 10
        before, self._seen = self._seen, {}
        for stream in tuple(streams):
            pending = stream.pending_bytes
            if pending <= share:
                continue
            waited, since = before.get(stream, (-1, now))
            if waited != pending:
                since = now
            elif now - since >= self._patience:
                self._end(stream, pending)
                continue
            self._seen[stream] = (pending, since)

    def given(self, stream: Sender) -> None:
        """Give a stream its time anew, since it is sent more."""
        self._seen.pop(stream, None)

    def forget(self) -> None:
        """Give all their time anew, since nobody waited."""
        self._seen.clear()
        self._next_look = 0.0

    def _end(self, stream: Sender, pending: int) -> None:
        _log.warning("deliver stream ended: not read", peer=stream.peer, waiting=pending)
        stream.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"{pending} bytes were not read within {self._patience:g} seconds while other "
            f"streams waited for room: read faster, or raise {self._setting}.",
        )


class Backlog:
    """A SendBound with a fixed share for each stream that there may be.

    A stream within its share, `max_bytes / streams`, never waits: who does not read large blocks
    cannot keep small ones from others. Above it streams wait for each other, in turn. One that took
    nothing for `patience` while others wait is ended.

    Args:
        max_bytes: the bound on what exceeds the shares.
        streams: how many streams there may be.
        patience: seconds.
    """

    def __init__(self, max_bytes: int, streams: int, patience: float = 30.0) -> None:
        self._max_bytes = max_bytes
        self._share = max_bytes // streams
        self.patience = patience
        self._streams: set[Sender] = set()
        self._stalled = StalledStreams(patience, "peer.limits.deliverBytes")
        self._estimate = 0  # never too low
        self._turn = asyncio.Lock()
        metrics.deliver_pending_bytes.set_function(self._count)

    def join(self, stream: Sender) -> None:
        """Count a stream from now on."""
        self._streams.add(stream)

    def leave(self, stream: Sender) -> None:
        """Count a stream no longer."""
        self._streams.discard(stream)

    def take(self, stream: Sender, size: int) -> bool:
        """Whether `stream` may send `size` bytes now; they count at once."""
        if stream.pending_bytes + size <= self._share:
            self._estimate += size
            return True
        return not self._turn.locked() and self._fits(stream, size)

    async def wait_for(self, stream: Sender, size: int) -> None:
        """Return once `stream` may send `size` bytes; they count at once."""
        async with self._turn:
            # Nobody above its share is sent anything meanwhile.
            self._stalled.forget()
            while not self._fits(stream, size):
                self._stalled.end(self._streams, self._share)
                await asyncio.sleep(_LOOK_SECONDS)

    def _fits(self, stream: Sender, size: int) -> bool:
        if self._estimate + size > self._max_bytes:
            self._estimate = self._count()
        within_share = stream.pending_bytes + size <= self._share
        if within_share or not self._estimate or self._estimate + size <= self._max_bytes:
            self._estimate += size
            return True
        return False

    def _count(self) -> int:
        return sum(stream.pending_bytes for stream in self._streams)
