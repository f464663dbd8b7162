"""One channel on its way from its source to the consumers: read, checked, told, remembered."""

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
from event_hub.sources.chain import Chain, Position
from event_hub.sources.checkpoint import Checkpoint
from event_hub.sources.deliver import DeliverConfig, DeliverSource
from event_hub.sources.history import History


class Feed:
    """Follows one channel of one source.

    Args:
        name: the channel.
        config: the source.
        folder: where positions are kept (``source.checkpoint``).
        material: what the hub shows the source.
        recent_bytes: what the newest blocks may take in memory.
        put: takes a publication, and waits for room as long as it takes.

    Raises:
        CheckpointError: the position of an earlier run cannot be read.
    """

    def __init__(
        self,
        name: str,
        config: Source,
        folder: Path,
        material: Material,
        recent_bytes: int,
        put: Callable[[Publication], Awaitable[None]],
    ) -> None:
        dial = partial(material.dial, tls=config.tls, max_bytes=config.max_recv_msg_size)
        credentials = partial(material.credentials, tls=config.tls)
        recent = RecentBlocks(recent_bytes)
        metrics.RECENT_BYTES.labels(channel=name).set_function(lambda: recent.held_bytes)
        self._put = put
        self.checkpoint = Checkpoint(folder, name)
        self.source = DeliverSource(
            DeliverConfig(
                addresses=config.addresses,
                channel=name,
                start=config.start,
                reconnect_initial=config.reconnect.initial,
                reconnect_max=config.reconnect.max,
                max_block_bytes=config.max_recv_msg_size,
                answer_timeout=config.answer_timeout,
            ),
            dial=dial,
            credentials=credentials,
            chain=Chain(name, self.checkpoint.position),
            take=self._take,
        )
        self.channel = Channel(
            name,
            validated=True,
            height=self.checkpoint.height,
            recent=recent,
            fetch=History(name, config.addresses, dial, credentials).read,
        )

    async def run(self) -> None:
        """Read, for as long as it runs."""
        await self.source.run()

    async def keep_position(self) -> None:
        """Write the position down as it moves, for as long as it runs."""
        await self.checkpoint.run()

    def check_source(self) -> None:
        """Raises SourceUnfit while the source's blocks do not continue those that were read."""
        self.source.check_health()

    def check_position(self) -> None:
        """Raises CheckpointError while the position cannot be written."""
        self.checkpoint.check_health()

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
