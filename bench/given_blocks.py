"""An ordering whose blocks were made beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chaincode_support.ledger import Ledger


class GivenBlocks:
    """Implements chaincode-support's OrderedBlocks.

    Args:
        ledger: its blocks come first.
        given: the marshalled blocks that follow them.
    """

    def __init__(self, ledger: Ledger, given: Sequence[bytes]) -> None:
        self._ledger = ledger
        self._first = ledger.height
        self._given = given

    @property
    def height(self) -> int:
        """How many there are, those of the ledger included."""
        return self._first + len(self._given)

    @property
    def ordered_bytes(self) -> int:
        """None come from now on."""
        return 0

    def block(self, number: int) -> bytes:
        """A marshalled block. Raises BlockNotFound, IndexError."""
        if number < self._first:
            return self._ledger.block(number)
        return self._given[number - self._first]

    async def wait_for(self, height: int) -> None:
        """Return if there are so many; never otherwise."""
        if height > self.height:
            await asyncio.get_running_loop().create_future()
