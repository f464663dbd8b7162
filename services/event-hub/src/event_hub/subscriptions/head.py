"""The heads of channels: who waits there is told of each new block, and costs nothing otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from event_hub.channels.block import ChannelBlock
from event_hub.channels.channel import Channel
from selvedge_common.logs import get_logger
from selvedge_common.protoutil.event_filter import EventFilter, Kind

if TYPE_CHECKING:
    from event_hub.subscriptions.subscription import Subscription

log = get_logger("eventhub.subscriptions")

# Who waits is told at most this often, in seconds, that the position moves.
MARKER_SECONDS = 5.0
# Of so many kinds of transactions it is remembered whom they are for, if their names have at most
# so many characters.
_MAX_KINDS = 4096
_MAX_NAMES = 1024
# So much effort of filters goes into one block; beyond that those who wait look by themselves, in
# turn.
_EFFORT_A_BLOCK = 50_000


@dataclass(eq=False)
class _Group:
    """Subscriptions that want the same."""

    wanted: EventFilter
    members: set[Subscription] = field(default_factory=set)


class Head:
    """Where the subscriptions to a channel wait that have been told everything so far.

    Those that want the same are looked at together, and for whom a kind of transaction is, is
    remembered: a block costs by the transactions in it and by those who are told of them, not by
    those who wait.

    Args:
        channel: the channel.
        marker_seconds: how often those who wait may be told that the position moves.

    Attributes:
        channel: the channel.
    """

    def __init__(self, channel: Channel, marker_seconds: float = MARKER_SECONDS) -> None:
        self.channel = channel
        self._marker_seconds = marker_seconds
        self._config = channel.config
        self._groups: dict[EventFilter, _Group] = {}
        self._effort = 0  # of all of them, for one kind
        self._interested: dict[Kind, Sequence[_Group]] = {}
        self._waiting: dict[Subscription, asyncio.Future[None]] = {}
        self._newest: ChannelBlock | None = None
        self._marking: asyncio.TimerHandle | None = None

    def __contains__(self, subscription: Subscription) -> bool:
        """Whether it waits here."""
        waiting = self._waiting.get(subscription)
        return waiting is not None and not waiting.done()

    @contextmanager
    def joined(self, subscription: Subscription) -> Iterator[None]:
        """Know a subscription, which waits here now and then."""
        wanted = subscription.wanted
        if wanted not in self._groups:
            self._groups[wanted] = _Group(wanted)
            self._effort += wanted.effort
            self._interested.clear()
        group = self._groups[wanted]
        group.members.add(subscription)
        try:
            yield
        finally:
            group.members.remove(subscription)
            if not group.members:
                del self._groups[wanted]
                self._effort -= wanted.effort
                self._interested.clear()

    async def wait(self, subscription: Subscription) -> None:
        """Tell it of the blocks that come, and return once it has to go on by itself: it does not
        keep up, or the channel has another configuration."""
        waiting = self._waiting[subscription] = asyncio.get_running_loop().create_future()
        self.channel.at_next_block(self._take)
        try:
            await waiting
        finally:
            del self._waiting[subscription]

    def _take(self, block: ChannelBlock) -> None:
        if not self._waiting:
            return
        self.channel.at_next_block(self._take)
        if self._config is not self.channel.config:
            self._config = self.channel.config
            self._release_all()
            return
        try:
            self._tell(block)
        except Exception:
            # Whoever cannot be told of it here finds out by itself, and nobody else is concerned.
            log.exception("block not told", block=block.number)
            self._release_all()
            return
        self._newest = block
        if self._marking is None:
            loop = asyncio.get_running_loop()
            self._marking = loop.call_later(self._marker_seconds, self._mark)

    def _tell(self, block: ChannelBlock) -> None:
        found = self._matching(block)
        if found is None:
            self._release_all()
            return
        for group, matching in found.items():
            for subscription in tuple(group.members):
                if subscription in self and not subscription.tell(block, matching):
                    self._waiting[subscription].set_result(None)

    def _matching(self, block: ChannelBlock) -> Mapping[_Group, Sequence[int]] | None:
        """For whom the block's transactions are, and which of them; None if that takes too long."""
        found: dict[_Group, list[int]] = {}
        effort = 0
        for index, kind in enumerate(block.notices.kinds):
            groups = self._interested.get(kind)
            if groups is None:
                effort += self._effort
                if effort > _EFFORT_A_BLOCK:
                    return None
                groups = [group for group in self._groups.values() if group.wanted.matches(kind)]
                self._remember(kind, groups)
            for group in groups:
                found.setdefault(group, []).append(index)
        return found

    def _remember(self, kind: Kind, groups: Sequence[_Group]) -> None:
        if len(kind.chaincode) + len(kind.event or "") + len(kind.creator) <= _MAX_NAMES:
            if len(self._interested) >= _MAX_KINDS:
                self._interested.clear()
            self._interested[kind] = groups

    def _release_all(self) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)

    def _mark(self) -> None:
        self._marking = None
        newest, self._newest = self._newest, None
        if newest is not None:
            for subscription in tuple(self._waiting):
                if subscription in self:
                    subscription.mark(newest)
