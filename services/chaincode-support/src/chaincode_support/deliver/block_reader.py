"""The blocks of a ledger or an ordering, read for Deliver where that holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Protocol, TypeAlias

from chaincode_support.ledger import LedgerClosed, LedgerError, ReadFailed
from chaincode_support.ordering import LogUnreadable, OrderedBlocks, OrderingError
from selvedge_common.protoutil.blocks import data_hash, parse_block
from selvedge_common.protoutil.errors import BlockUnavailable, MalformedBlock, MalformedMessage
from selvedge_common.protoutil.responses import MakeResponse
from selvedge_protos.common import common_pb2

# What may pass, or is not the block's fault.
_PASSING = (LedgerClosed, LogUnreadable, ReadFailed)

ReadBlocks: TypeAlias = Callable[[int, int, int], Generator[bytes, None, None]]
"""Reads marshalled blocks as they are asked for, on any thread.

Takes the first number and the last, and how many bytes they have together when they are enough.
Raises LedgerError and OrderingError.
"""


class Blocks(Protocol):
    """What is read: a channel's ledger or its ordering."""

    @property
    def height(self) -> int:
        """How many blocks there are."""

    def found_damaged(self, number: int, error: Exception) -> Exception:
        """Take note that a block is none, as `error` says, and give what to raise."""

    async def wait_for(self, height: int) -> None:
        """Return once `self.height` is at least `height`."""


class BlockReader:
    """A protoutil.responses.BlockSource that reads on a thread of its own.

    A replay reads as fast as the disk gives, in blocks of many megabytes; the event loop, which all
    streams and proposals share, must not wait for it, and neither must other channels.

    Args:
        channel: its name.
        blocks: the channel's ledger or its ordering.
        read: reads its blocks.
        held: gives a block that is in memory, see BlockSource.
    """

    def __init__(
        self,
        channel: str,
        blocks: Blocks,
        read: ReadBlocks,
        held: Callable[[int], bytes | None] = lambda _: None,
    ) -> None:
        self.held = held
        self._channel = channel
        self._blocks = blocks
        self._read_blocks = read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"deliver-{channel}")

    @property
    def height(self) -> int:
        """How many blocks there are."""
        return self._blocks.height

    async def wait_for(self, height: int) -> None:
        """Return once `self.height` is at least `height`."""
        await self._blocks.wait_for(height)

    async def read(
        self, first: int, last: int, max_bytes: int, make: MakeResponse
    ) -> Sequence[bytes]:
        """See BlockSource. Raises BlockUnavailable."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._thread, self._read, first, last, max_bytes, make
            )
        except _PASSING as error:
            raise self._unavailable(common_pb2.SERVICE_UNAVAILABLE, first, str(error)) from error
        except MemoryError as error:
            why = "there is no memory left for it: give the service more."
            raise self._unavailable(common_pb2.SERVICE_UNAVAILABLE, first, why) from error
        except (LedgerError, OrderingError) as error:
            raise self._unavailable(common_pb2.INTERNAL_SERVER_ERROR, first, str(error)) from error

    async def close(self) -> None:
        """Return when nothing is read any more; harmless when repeated."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: self._thread.shutdown(cancel_futures=True))

    def _read(self, first: int, last: int, max_bytes: int, make: MakeResponse) -> Sequence[bytes]:
        made: list[bytes] = []
        try:
            with closing(self._read_blocks(first, last, max_bytes)) as blocks:
                for number, block in enumerate(blocks, first):
                    _check(number, block)
                    made.append(make(block))
        except Exception as error:
            # Whoever comes to the block that cannot be given is told.
            if not made:
                if isinstance(error, MalformedMessage):
                    raise self._blocks.found_damaged(first, error) from error
                raise
        return made

    def _unavailable(
        self, status: common_pb2.Status.ValueType, number: int, why: str
    ) -> BlockUnavailable:
        return BlockUnavailable(
            status, f"Block {number} of channel {self._channel} cannot be delivered: {why}"
        )


def one_by_one(ordering: OrderedBlocks) -> ReadBlocks:
    """Reads the blocks of an ordering."""

    def read(first: int, last: int, max_bytes: int) -> Generator[bytes, None, None]:
        for number in range(first, last + 1):
            block = ordering.block(number)
            yield block
            max_bytes -= len(block)
            if max_bytes <= 0:
                break

    return read


def _check(number: int, block: bytes) -> None:
    """A disk's errors do not always show in what holds the pages of a file together."""
    parsed = parse_block(block)
    if parsed.header.number != number:
        raise MalformedBlock(f"It says that it is block {parsed.header.number}.")
    if parsed.header.data_hash != data_hash(parsed.data.data):
        raise MalformedBlock("Its data do not fit the hash in its header.")
