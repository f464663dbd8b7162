"""One channel as the hub serves it: how far it is, its blocks, and who may read them."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from event_hub.channels.block import ChannelBlock
from event_hub.channels.recent import RecentBlocks
from event_hub.channels.status import SourceStatus
from selvedge_common.logs import get_logger
from selvedge_common.msp import PolicyError, identify
from selvedge_common.msp.policies import SignedData, not_satisfied
from selvedge_common.protoutil.config_block import ChannelConfig
from selvedge_common.protoutil.errors import BlockUnavailable
from selvedge_protos.common import common_pb2

log = get_logger("eventhub.channel")

READERS = "/Channel/Application/Readers"


class Channel:
    """A channel that a source serves.

    Whoever sends events the moment they happen hears of a block by `begin` in the processor; all
    others wait for the height and read blocks at their own pace.

    Args:
        name: the channel's name.
        validated: whether its source says which transactions are valid (a peer, not an orderer).
        height: how many blocks were told before, by an earlier run.
        recent: the blocks that were read last.
        fetch: gives a block that is not among them, from the source; raises
            protoutil.errors.BlockUnavailable.

    Attributes:
        config: the channel's configuration as of the block that was read last; None until the
            source has given it. Another object whenever it changes.
        status: how the source is doing.
    """

    def __init__(
        self,
        name: str,
        *,
        validated: bool,
        height: int,
        recent: RecentBlocks,
        fetch: Callable[[int], Awaitable[ChannelBlock]],
    ) -> None:
        self.name = name
        self.validated = validated
        self.config: ChannelConfig | None = None
        self.status = SourceStatus()
        self._height = height
        self._recent = recent
        self._fetch = fetch
        self._moved = asyncio.Event()
        self._beginning: dict[Callable[[ChannelBlock], None], None] = {}

    @property
    def height(self) -> int:
        """How many blocks there are to read; the newest has the number one below."""
        return self._height

    @property
    def ready(self) -> bool:
        """Whether it can be read: its configuration is known, and a first block."""
        return self.config is not None and self._height > 0

    def begin(self, block: ChannelBlock) -> None:
        """Take the next block, just before its events go to those who hear of them at once."""
        # Before anybody is told of the block, so that whoever has caught up misses none of it.
        callbacks, self._beginning = self._beginning, {}
        for callback in callbacks:
            try:
                callback(block)
            except Exception:
                # A fault with one consumer must not keep the block from all others.
                log.exception("fault as a block begins", channel=self.name, block=block.number)
        self._recent.add(block)
        self._height = block.number + 1
        self._moved.set()
        self._moved = asyncio.Event()

    def at_next_block(self, callback: Callable[[ChannelBlock], None]) -> None:
        """Call `callback` once, with the next block, before the first of its events is told."""
        self._beginning[callback] = None

    def withdraw(self, callback: Callable[[ChannelBlock], None]) -> None:
        """Do not call `callback` at the next block any more."""
        self._beginning.pop(callback, None)

    async def wait_for(self, height: int) -> None:
        """Return once `self.height` is at least `height`."""
        while self._height < height:
            await self._moved.wait()

    def recent(self, number: int) -> ChannelBlock | None:
        """The block of that number, if it was read lately."""
        return self._recent.get(number)

    async def read(self, number: int) -> ChannelBlock:
        """The block of that number, which is below `height`.

        Raises:
            BlockUnavailable: no source gives it now, or who may read the channel is not known yet.
        """
        if self.config is None:
            raise BlockUnavailable(
                common_pb2.SERVICE_UNAVAILABLE,
                f"{self.name} has not come from the source yet; try again",
            )
        return self._recent.get(number) or await self._fetch(number)

    def admit(self, signed: SignedData) -> datetime:
        """Say until when whoever signed may read this channel, by its Readers policy.

        Raises:
            IdentityError: the identity is none of the channel's organisations, has expired or was
                revoked, or the signature is not its own.
            PolicyError: it may not read, or the configuration is not known yet.
        """
        config = self._configured()
        identity = identify(signed.identity, config.msps)
        identity.verify(signed.message, signed.signature)
        if not config.policies.satisfied_at(READERS, [identity], config.msps):
            raise not_satisfied(f"The policy {READERS} of {self.name}", [identity])
        return identity.expires_at

    def _configured(self) -> ChannelConfig:
        if self.config is None:
            raise PolicyError(
                f"the configuration of {self.name} has not come from the source yet; try again"
            )
        return self.config
