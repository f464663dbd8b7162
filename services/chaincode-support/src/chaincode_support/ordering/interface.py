"""What the rest of the service asks of an ordering, and an ordering of the log that it appends to.

The log is where orderings meet that order the same channel, each in a process of its own: there is
one place for each number, and whoever comes first has it. None of them leads, and none needs to
know of the others; so an ordering over a replicated log is the embedded one with another BlockLog.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from chaincode_support.ordering.errors import LogUnusable
from selvedge_protos.common import common_pb2


class Tip(NamedTuple):
    """Where a chain of blocks ends.

    Attributes:
        height: how many blocks there are; the next block's number.
        last_hash: of the newest block's header; empty while there is no block.
    """

    height: int
    last_hash: bytes


class BlockLog(Protocol):
    """One channel's blocks, durable and for ever; several orderings may append to the same ones.

    A block's number is its place, and holds the hash of the block before: so whoever appends only
    to the end that it has seen keeps the chain whole. `append` and `tip` belong to one thread;
    `block` may be called on any.
    """

    @property
    def tip(self) -> Tip:
        """The end, as far as this log has seen."""

    def follow(self, advanced: Callable[[int, int], object]) -> None:
        """Have `advanced(height, size)` called as `tip` moves, after it has, whoever appended.

        There are `height` durable blocks then, and the new ones have `size` bytes together. It is
        called in the order of the blocks, on whatever thread, and must not block. Of blocks that
        others append a log may know nothing until its own next `append`.
        """

    def append(self, block: common_pb2.Block) -> None:
        """Make a block durable at the place of its number; followers know of it on return.

        Raises:
            PositionTaken: another block is there, so this one is not in the log and never will be;
                `tip` is beyond that place by now, and followers know.
            LogUnwritable: it is not known to be durable, for a reason that may pass. If it proves
                to be, for whoever opens the log after a crash or for followers, it is there once.
            LogUnusable: nothing can be appended until the log has been mended.
        """

    def block(self, number: int) -> bytes:
        """The marshalled block `number`; see OrderedBlocks.block."""

    def damaged(self, number: int, why: str) -> LogUnusable:
        """What to raise for a block that is there and is none, with where and what to do."""

    def close(self) -> None:
        """Close what it is kept in."""


class OrderedBlocks(Protocol):
    """One channel's blocks for who follows them."""

    @property
    def height(self) -> int:
        """How many blocks are durable; the next block's number."""

    @property
    def ordered_bytes(self) -> int:
        """How many bytes have become durable since this was opened."""

    def block(self, number: int) -> bytes:
        """The marshalled common.Block `number`, on any thread.

        Raises KeyError when there is none, LogUnreadable when it cannot be read now, LogUnusable
        when it never will be.
        """

    async def wait_for(self, height: int) -> None:
        """Return once there are at least `height` blocks."""


class Ordering(OrderedBlocks, Protocol):
    """One channel's total order of envelopes, cut into blocks; a block's number is its place."""

    @property
    def damage(self) -> str | None:
        """What is wrong with it and what to do about it, for operators; None for nothing."""

    def order(self, envelope: bytes) -> asyncio.Future[int]:
        """Take a marshalled common.Envelope; the future gives its block's number once durable.

        Raises an OrderingRefused at once; the future fails with OrderingFailed. Cancelling the
        future does not take the envelope back.
        """

    def found_damaged(self, number: int, error: Exception) -> LogUnusable:
        """What to raise for a block that was read and is none, as `error` says; on any thread."""

    def discard(self) -> None:
        """Close an ordering that has taken nothing, at once."""

    async def close(self) -> None:
        """Make durable what was taken, then close; harmless when repeated."""
