"""One channel on its way from its source to the consumers: read, checked, told, remembered."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from event_hub import metrics
from event_hub.channels.block import ChannelBlock
from event_hub.channels.channel import Channel
from event_hub.channels.recent import RecentBlocks
from event_hub.config import Source
from event_hub.material import Material
from event_hub.processor import Publication
from event_hub.sources.addresses import Addresses
from event_hub.sources.chain import Chain, Position
from event_hub.sources.checkpoint import Checkpoint
from event_hub.sources.deliver import DeliverConfig, DeliverSource, SourceUnfit
from event_hub.sources.history import History, HistoryConfig
from event_hub.sources.rivals import Rivals, RivalsConfig
from event_hub.sources.trust import Trust
from selvedge_common.protoutil.config_block import ChannelConfig


class Feed:
    """Follows one channel of one source.

    Args:
        name: the channel.
        key: of the source in the settings, for sentences.
        config: the source.
        folder: where positions and configurations are kept (``source.checkpoint``).
        material: what the hub shows the source.
        recent_bytes: what the newest blocks may take in memory.
        put: takes a publication, and waits for room as long as it takes.

    Raises:
        CheckpointError: the position of an earlier run cannot be read.
    """

    def __init__(
        self,
        name: str,
        key: str,
        config: Source,
        folder: Path,
        material: Material,
        recent_bytes: int,
        put: Callable[[Publication], Awaitable[None]],
    ) -> None:
        recent = RecentBlocks(recent_bytes)
        metrics.RECENT_BYTES.labels(channel=name).set_function(lambda: recent.held_bytes)
        self._put = put
        self.checkpoint = Checkpoint(folder, name)
        self.channel = Channel(
            name,
            validated=config.kind == "peer",
            height=self.checkpoint.height,
            recent=recent,
            fetch=self._fetch,
        )
        dial = partial(material.dial, source=config, key=key)
        trust = Trust(name, self.checkpoint.configurations, self._configured)
        chain = Chain(name, self.checkpoint.position, key)
        rivals = Rivals(
            RivalsConfig(
                key=key,
                kind=config.kind,
                channel=name,
                addresses=config.addresses,
                interval=config.compare_interval,
                answer_timeout=config.answer_timeout,
            ),
            dial=dial,
            chain=chain,
            trust=trust,
        )
        self.source = DeliverSource(
            DeliverConfig(
                key=key,
                kind=config.kind,
                channel=name,
                start=config.start,
                max_block_bytes=config.max_recv_msg_size,
                answer_timeout=config.answer_timeout,
            ),
            dial=dial,
            addresses=_addresses(config),
            chain=chain,
            trust=trust,
            rivals=rivals,
            status=self.channel.status,
            take=self._take,
        )
        self._history = History(
            HistoryConfig(
                key=key,
                kind=config.kind,
                channel=name,
                max_bytes=config.history_bytes,
                answer_timeout=config.answer_timeout,
            ),
            dial=dial,
            addresses=_addresses(config),
            live=lambda: self.channel.status.address,
            height=lambda: self.channel.height,
            trust=trust,
        )

        metrics.SOURCE_BEHIND.labels(channel=name).set_function(self._behind)
        metrics.SOURCE_UNFIT.labels(channel=name).set_function(self._is_unfit)

    async def run(self) -> None:
        """Read new blocks, for as long as it runs."""
        await self.source.run()

    async def read_history(self) -> None:
        """Read older blocks when somebody wants them, for as long as it runs."""
        await self._history.run()

    async def keep_position(self) -> None:
        """Write the position down as it moves, for as long as it runs."""
        await self.checkpoint.run()

    def check_source(self) -> None:
        """Raises SourceUnfit while the source's blocks do not continue those that were read."""
        self.source.check_health()

    def check_position(self) -> None:
        """Raises CheckpointError while the position cannot be written."""
        self.checkpoint.check_health()

    def _behind(self) -> int:
        return self.channel.status.behind(self.channel.height)

    def _is_unfit(self) -> bool:
        try:
            self.check_source()
        except SourceUnfit:
            return True
        return False

    async def _fetch(self, number: int) -> ChannelBlock:
        return await self._history.read(number)

    def _configured(self, config: ChannelConfig) -> None:
        self.channel.config = config

    async def _take(self, block: ChannelBlock, position: Position, history: bool) -> None:
        await self._put(
            Publication(
                block.wanted_events,
                size=block.held_bytes,
                begin=partial(self.channel.begin, block),
                handed_over=partial(self.checkpoint.advance, position),
                history=history,
            )
        )


def _addresses(config: Source) -> Addresses:
    """Each reader's own: how an address does for one says little of the other's requests."""
    return Addresses(
        config.addresses,
        config.reconnect.initial,
        config.reconnect.max,
        lambda: asyncio.get_running_loop().time(),
    )
