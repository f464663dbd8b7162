"""What Deliver sends, made once for all who read it, and bounded while it waits for them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import grpc

from selvedge_common.logs import get_logger
from selvedge_common.protoutil import metrics
from selvedge_common.protoutil.block_events import filtered_block
from selvedge_common.protoutil.blocks import parse_block
from selvedge_common.protoutil.wire import length_delimited, marshal
from selvedge_protos.peer import events_pb2

# Responses that are remembered, beside those that still wait for a reader.
REMEMBERED_BYTES = 16 * 1024 * 1024

# How often, in seconds, a stream looks whether there is room again, the first in the queue only.
_LOOK_SECONDS = 0.02

_log = get_logger("common.deliver")


class BlockSource(Protocol):
    """Who has the blocks of a channel."""

    @property
    def height(self) -> int:
        """How many blocks there are; the newest has the number one below."""

    def block(self, number: int) -> bytes:
        """Give the marshalled block `number`, which is below `height`."""

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


def block_response(block: bytes) -> bytes:
    """Frame a marshalled block as a DeliverResponse, the peer's or the orderer's, unparsed."""
    return length_delimited(events_pb2.DeliverResponse.BLOCK_FIELD_NUMBER, block)


def filtered_block_response(block: bytes) -> bytes:
    """Make the DeliverResponse with the filtered form of a marshalled block."""
    return length_delimited(
        events_pb2.DeliverResponse.FILTERED_BLOCK_FIELD_NUMBER,
        marshal(filtered_block(parse_block(block))),
    )


class Responses:
    """The responses with a source's blocks, of one kind; all their readers share the bytes.

    Args:
        source: the blocks.
        make: makes the response out of a marshalled block.
        max_bytes: how much is remembered of what was made last; the last one in any case.
    """

    def __init__(
        self,
        source: BlockSource,
        make: Callable[[bytes], bytes] = block_response,
        max_bytes: int = REMEMBERED_BYTES,
    ) -> None:
        self._source = source
        self._make = make
        self._max_bytes = max_bytes
        self._made: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0

    @property
    def height(self) -> int:
        """How many blocks there are."""
        return self._source.height

    async def wait_for(self, height: int) -> None:
        """Return once `self.height` is at least `height`."""
        await self._source.wait_for(height)

    def response(self, number: int) -> bytes:
        """Give the marshalled DeliverResponse with the block `number`, which is below `height`."""
        made = self._made.get(number)
        if made is not None:
            self._made.move_to_end(number)
            return made
        made = self._made[number] = self._make(self._source.block(number))
        self._bytes += len(made)
        while self._bytes > self._max_bytes and len(self._made) > 1:
            _, oldest = self._made.popitem(last=False)
            self._bytes -= len(oldest)
        return made


class Backlog:
    """The bytes that wait for the readers of a process's Deliver streams, bounded for all together.

    gRPC copies what it sends, so bytes that readers share are counted for each. A stream within its
    share, `max_bytes / streams`, never waits: who does not read large blocks cannot keep small ones
    from others. Above it streams wait for each other, in turn. One that took nothing for `patience`
    while others wait is ended, or readers that do not read would hold up all the others for ever.

    Args:
        max_bytes: the bound on what exceeds the shares.
        streams: how many streams there may be.
        patience: seconds.
    """

    def __init__(self, max_bytes: int, streams: int, patience: float = 30.0) -> None:
        self._max_bytes = max_bytes
        self._share = max_bytes // streams
        self._patience = patience
        self._streams: set[Sender] = set()
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
        if stream.pending_bytes + size > self._share and not self._turn_is_free():
            return False
        return self._fits(stream, size)

    async def wait_for(self, stream: Sender, size: int) -> None:
        """Return once `stream` may send `size` bytes; they count at once."""
        clock = asyncio.get_running_loop().time
        async with self._turn:
            before, since = self._pending(), clock()
            while not self._fits(stream, size):
                await asyncio.sleep(_LOOK_SECONDS)
                if clock() - since >= self._patience:
                    self._end_stalled(before)
                    before, since = self._pending(), clock()

    def _turn_is_free(self) -> bool:
        return not self._turn.locked()

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

    def _pending(self) -> dict[Sender, int]:
        return {stream: stream.pending_bytes for stream in self._streams}

    def _end_stalled(self, before: dict[Sender, int]) -> None:
        for stream in tuple(self._streams):
            pending = stream.pending_bytes
            if pending > self._share and pending == before.get(stream):
                _log.warning("deliver stream ended: not read", peer=stream.peer, waiting=pending)
                stream.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{pending} bytes were not read within {self._patience:g} seconds while other "
                    "Deliver streams waited for room: read faster, or raise "
                    "peer.limits.deliverBytes.",
                )
