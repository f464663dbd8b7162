"""One channel at work: ordered, validated, committed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from chaincode_support.channel import Channel
from chaincode_support.config import Config
from chaincode_support.genesis import open_channel, open_ordering
from chaincode_support.ledger.committer import Committer
from chaincode_support.ledger.validation import Validator
from chaincode_support.material import Material
from chaincode_support.ordering.broadcast import OrderedChannel


class Chain:
    """A channel with what moves it. What stops one leaves the others alone.

    To be made on the running event loop; `close` ends everything it opened. Raises LedgerError,
    OrderingError, ForeignVolume when the volume cannot be used.
    """

    def __init__(self, name: str, config: Config, material: Material) -> None:
        self.name = name
        self.ordering = open_ordering(name, config, material)
        self.channel: Channel = open_channel(name, config, material, self.ordering)
        self._validator = Validator(
            name, self.channel.msps, self.channel.application, _verifying_threads(config)
        )
        self.committer = Committer(
            self.ordering,
            self.channel.ledger,
            self._validator,
            blocks_ahead=config.orderer.limits.blocks_ahead,
        )
        self.ordered = OrderedChannel(
            self.channel,
            self.ordering,
            config.orderer.batch_size.absolute_max_bytes,
            self.committer.check_committing,
        )
        self._committing: asyncio.Task[None] | None = None

    @property
    def height(self) -> int:
        """Blocks in its ledger."""
        return self.channel.ledger.height

    @property
    def stopped(self) -> bool:
        """Whether nothing is committed any more."""
        return self._committing is not None and self._committing.done()

    async def start(self) -> None:
        """Begin to commit, and return when the ledger has caught up with the ordering.

        Raises CommitterStopped when it cannot.
        """
        committing = self._committing = asyncio.create_task(self.committer.run())
        caught_up = asyncio.create_task(self.channel.ledger.wait_for(self.ordering.height))
        try:
            await asyncio.wait((committing, caught_up), return_when=asyncio.FIRST_COMPLETED)
            if committing.done():
                await committing
        finally:
            caught_up.cancel()

    def when_stopped(self, tell: Callable[[], None]) -> None:
        """Call `tell` when a block of the started chain can never be committed."""
        assert self._committing is not None

        def ended(committing: asyncio.Task[None]) -> None:
            if not committing.cancelled() and committing.exception() is not None:
                tell()

        self._committing.add_done_callback(ended)

    async def close(self) -> None:
        """Make durable what was taken, and close the files."""
        if self._committing is not None:
            self._committing.cancel()
            await asyncio.gather(self._committing, return_exceptions=True)
        await self.ordering.close()
        self._validator.close()
        self.channel.ledger.close()


def _verifying_threads(config: Config) -> int:
    """peer.validatorPoolSize, or one thread per core."""
    return config.peer.validator_pool_size or os.cpu_count() or 1
