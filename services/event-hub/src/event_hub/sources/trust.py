"""Whether a channel's orderers vouch for its blocks, by the channel's own configuration.

The first configuration is the source's word, at the first contact. Every further one is in a block
that was signed as the one before it demands, so from then on no source can make up a block.
"""

from collections.abc import Callable, Iterator, Sequence

from event_hub.channels.block import ChannelBlock
from event_hub.sources.chain import ChainError, Fork, NotSigned, UnusableConfiguration, check_data
from event_hub.sources.configurations import Configuration, Configurations
from selvedge_common.logs import get_logger
from selvedge_common.msp import PolicyError
from selvedge_common.protoutil import blocks
from selvedge_common.protoutil.config_block import ChannelConfig, is_config_block
from selvedge_common.protoutil.errors import MalformedBlock
from selvedge_common.quoting import quoted
from selvedge_protos.common import common_pb2

log = get_logger("eventhub.trust")


class Trust:
    """Judges the blocks of one channel, new and old.

    Args:
        channel: its name.
        configurations: those that were passed.
        changed: told of the configuration in force, now and whenever it changes.
    """

    def __init__(
        self,
        channel: str,
        configurations: Configurations,
        changed: Callable[[ChannelConfig], None],
    ) -> None:
        self._channel = channel
        self._configurations = configurations
        self._changed = changed
        newest = configurations.newest
        if newest is not None:
            changed(newest.config)

    @property
    def begun(self) -> bool:
        """Whether there is a configuration to judge by."""
        return self._configurations.newest is not None

    def reaches(self, number: int) -> bool:
        """Whether there is the configuration in the block of that number, or a later one."""
        newest = self._configurations.newest
        return newest is not None and newest.number >= number

    def begin(self, block: common_pb2.Block) -> None:
        """Trust the source for the configuration by which its next blocks are judged.

        Raises:
            UnusableConfiguration, DamagedBlock: it cannot be used.
        """
        check_data(block)
        if not is_config_block(block):
            raise UnusableConfiguration(
                f"block {block.header.number} of the source holds no configuration of the channel, "
                "though one is due there; the source's ledger is damaged or altered"
            )
        configuration = self._add(block)
        log.info(
            "the source's configuration is trusted at first contact",
            channel=self._channel,
            block=configuration.number,
            organisations=sorted(configuration.config.msps),
        )

    def check(self, block: common_pb2.Block) -> None:
        """Check that a block, new or old, is one of the channel.

        Block 0 has no signatures, and blocks from before the first contact cannot be judged: they
        pass.

        Raises:
            NotSigned: the channel's orderers have not signed it.
            Fork: it is another one than the configuration block that was passed.
        """
        number = block.header.number
        passed = self._configurations.at(number)
        if passed is not None and passed.hash != blocks.header_hash(block.header):
            raise Fork(
                f"block {number} of the source is not the configuration of {self._channel} that "
                "this hub has read; the source serves another history of the channel"
            )
        configuration = self._configurations.before(number)
        if configuration is None:
            return
        try:
            configuration.validation.check(block)
        except (MalformedBlock, PolicyError) as error:
            raise NotSigned(
                f"block {number} of the source is not signed as the configuration of "
                f"{self._channel} in block {configuration.number} demands; the source's ledger is "
                f"altered: {error}"
            ) from error

    def proven(self, linked: Sequence[ChannelBlock]) -> Iterator[ChannelBlock]:
        """Give those that are the channel's, of blocks each of which names the one before it: then
        the orderers' word for the last one is their word for all.

        Raises:
            NotSigned, Fork: where that is not so, for the first that is not the channel's.
        """
        try:
            if linked:
                self.check(linked[-1].message)
        except ChainError:
            for block in linked:
                self.check(block.message)
                yield block
            raise
        yield from linked

    def move_on(self, block: common_pb2.Block) -> None:
        """Judge the next blocks by a block that has passed, if it holds a configuration.

        Raises:
            UnusableConfiguration: it cannot be used.
        """
        if is_config_block(block):
            self._add(block)

    def _add(self, block: common_pb2.Block) -> Configuration:
        number = block.header.number
        try:
            configuration = Configuration.of(block)
        except MalformedBlock as error:
            raise UnusableConfiguration(
                f"the configuration of {self._channel} in block {number} of the source cannot be "
                f"used: {error}"
            ) from error
        if configuration.config.channel != self._channel:
            raise UnusableConfiguration(
                f"block {number} of the source is the configuration of the channel "
                f"{quoted(configuration.config.channel)} and not of {self._channel!r}; the source "
                "mixes its channels up"
            )
        self._configurations.add(configuration, block)
        self._changed(configuration.config)
        return configuration
