"""One channel at work: ordered, validated, committed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from chaincode_support.channel import Channel
from chaincode_support.config import Config
from chaincode_support.deliver import BlockReader, one_by_one
from chaincode_support.genesis import ForeignVolume, open_channel, open_ordering
from chaincode_support.ledger import LedgerError, LedgerUnusable, metrics
from chaincode_support.ledger.committer import Committer
from chaincode_support.ledger.endorsement_policies import DefaultPolicies, EndorsementPolicies
from chaincode_support.ledger.validation import Validator
from chaincode_support.material import Material
from chaincode_support.ordering import Ordering, OrderingError
from chaincode_support.ordering.broadcast import OrderedChannel
from chaincode_support.volume import ChannelFiles, Claim
from selvedge_common.logs import get_logger
from selvedge_common.msp import MSP
from selvedge_common.msp.policies import PolicyGroup
from selvedge_common.protoutil.errors import MalformedBlock

_log = get_logger("peer")

# What is wrong with one channel's files and says nothing of the others'.
_UNUSABLE = (LedgerError, OrderingError, ForeignVolume, MalformedBlock)


class Chain:
    """A channel with what moves it. What stops one leaves the others alone.

    To be made on the running event loop; `close` ends everything it opened. Raises LedgerError,
    OrderingError, ForeignVolume when the volume cannot be used.
    """

    def __init__(self, name: str, config: Config, material: Material) -> None:
        self.name = name
        files = ChannelFiles.on(config.peer.file_system_path, name)
        self._claim = Claim(files, "a running chaincode-support")
        try:
            self.ordering: Ordering = open_ordering(name, config, material)
            try:
                self.channel: Channel = open_channel(name, config, material, self.ordering)
            except BaseException:
                self.ordering.discard()
                raise
        except BaseException:
            self._claim.release()
            raise
        self._validator = make_validator(
            name, self.channel.policies, self.channel.msps, _verifying_threads(config)
        )
        self.committer = Committer(
            self.ordering,
            self.channel.ledger,
            self._validator,
            blocks_ahead=config.orderer.limits.blocks_ahead,
            bytes_ahead=config.orderer.limits.bytes_ahead,
        )
        self.ordered = OrderedChannel(
            self.channel,
            self.ordering,
            config.orderer.batch_size.absolute_max_bytes,
            self.committer.check_committing,
        )
        ledger = self.channel.ledger
        self.committed_blocks = BlockReader(name, ledger, ledger.blocks, ledger.held)
        """For the peer's Deliver."""
        self.ordered_blocks = BlockReader(name, self.ordering, one_by_one(self.ordering))
        """For the orderer's Deliver."""
        self._committing: asyncio.Task[None] | None = None

    @property
    def height(self) -> int:
        """Blocks in its ledger."""
        return self.channel.ledger.height

    @property
    def stopped(self) -> bool:
        """Whether nothing is committed any more."""
        return self._committing is not None and self._committing.done()

    def check_health(self) -> None:
        """Raises a LedgerError that says why blocks cannot be committed, or the channel not read.

        It is CommitterFailing while that may pass.
        """
        self.committer.check_health()
        damage = self.channel.ledger.damage or self.ordering.damage
        if damage is not None:
            raise LedgerUnusable(damage)

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
        await asyncio.gather(self.committed_blocks.close(), self.ordered_blocks.close())
        self._validator.close()  # its threads read the ordering's blocks
        await self.ordering.close()
        self.channel.ledger.close()
        self._claim.release()


def _verifying_threads(config: Config) -> int:
    """peer.validatorPoolSize, or one thread per core."""
    return config.peer.validator_pool_size or os.cpu_count() or 1


def make_validator(
    name: str, policies: PolicyGroup, msps: Mapping[str, MSP], workers: int
) -> Validator:
    """What judges the transactions of a channel with this configuration.

    `policies`: from /Channel down; `msps`: its organisations by MSP id; `workers`: threads.
    """
    endorsement = EndorsementPolicies(DefaultPolicies(), policies, msps)
    return Validator(name, msps, endorsement, workers)


def open_chains(config: Config, material: Material) -> tuple[list[Chain], dict[str, str]]:
    """The channels that can be used, and by their names why the others cannot.

    Raises what Chain raises when none of them can.
    """
    chains: list[Chain] = []
    failures: dict[str, Exception] = {}
    for name in config.channel.names:
        try:
            chains.append(Chain(name, config, material))
        except _UNUSABLE as error:
            failures[name] = error
    if not chains:
        raise next(iter(failures.values()))
    for name, failure in failures.items():
        metrics.commit_failing.labels(name).set(1)
        _log.critical("channel not served", channel=name, error=str(failure))
    return chains, {name: str(failure) for name, failure in failures.items()}
