"""What the rest of the service asks of an ordering, embedded or replicated."""

import asyncio
from typing import Protocol


class Ordering(Protocol):
    """One channel's total order of envelopes, cut into blocks; a block's number is its place."""

    @property
    def height(self) -> int:
        """How many blocks are durable; the next block's number."""

    def order(self, envelope: bytes) -> asyncio.Future[int]:
        """Take a marshalled common.Envelope; the future gives its block's number once durable.

        Raises OrderingFull or OrderingClosed at once; the future fails with OrderingFailed.
        Cancelling the future does not take the envelope back.
        """

    def block(self, number: int) -> bytes:
        """The marshalled common.Block `number`.

        Raises KeyError when there is none, LogUnreadable when it cannot be read now, LogUnusable
        when it never will be.
        """

    async def wait_for(self, height: int) -> None:
        """Return once there are at least `height` blocks."""
