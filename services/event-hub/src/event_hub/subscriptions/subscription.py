"""One subscriber: what it is told of a channel, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import grpc

from event_hub import metrics
from event_hub.channels.block import ChannelBlock
from event_hub.session import CloseReason, Session
from event_hub.subscriptions.head import Head
from event_hub.turns import Turns
from selvedge_common.protoutil.config_block import ChannelConfig
from selvedge_common.protoutil.event_filter import EventFilter, Kind
from selvedge_common.protoutil.responses import SendBound

# So many blocks may go by with nothing to tell until the position is told to have moved.
MARKER_BLOCKS = 1000
# So many notices at once; others have their turn in between.
_NOTICES_A_TURN = 64
# So much effort of its filter goes into one turn.
_EFFORT_A_TURN = 2000

_TRANSACTIONS = metrics.NOTICES.labels(kind="transaction")
_POSITIONS = metrics.NOTICES.labels(kind="position")


class Subscription:
    """What a subscriber has been told, and what is next.

    What is past it reads at its own pace, block after block. Once it has been told everything it
    waits at the channel's head and is told of new blocks there, for as long as it keeps up.

    Args:
        session: its stream.
        head: the head of its channel.
        room: bounds what waits for all who read at their own pace.
        turns: are taken by all of these.
        check_access: raises IdentityError or PolicyError once it may not read the channel any more;
            asked whenever the channel's configuration is another.
        wanted: what is told.
        payload: whether events come with their payload.
        block: the number of the next block.
        transaction: the next transaction of it.
    """

    def __init__(
        self,
        session: Session,
        head: Head,
        room: SendBound,
        turns: Turns,
        *,
        check_access: Callable[[], object],
        wanted: EventFilter,
        payload: bool,
        block: int,
        transaction: int = 0,
    ) -> None:
        self.wanted = wanted
        self._session = session
        self._channel = head.channel
        self._head = head
        self._room = room
        self._turns = turns
        self._check_access = check_access
        self._config: ChannelConfig | None = None
        self._payload = payload
        self._block = block
        self._transaction = transaction
        # The block that the position which was told last is before.
        self._marked = block
        # How many bytes there was no room for, and how many there is room for: it was waited for.
        self._lacking = self._granted = 0
        # What it is to be told of the block that it reads, found once for all its turns.
        self._matched: int | None = None
        self._matching: Sequence[int] = ()

    async def run(self) -> None:
        """Tell what there is to tell, until the stream ends.

        Raises:
            BlockUnavailable: no source gives a block now.
            IdentityError, PolicyError: it may not read the channel any more.
        """
        self._room.join(self._session)
        try:
            with self._head.joined(self):
                while not self._session.closed:
                    if self._config is not self._channel.config:
                        # All of them at once, at a change of the configuration.
                        await self._turns.take()
                        self._config = self._channel.config
                        self._check_access()
                    if self._block < self._channel.height:
                        await self._read()
                    else:
                        await self._head.wait(self)
        finally:
            self._room.leave(self._session)

    def tell(self, block: ChannelBlock, matching: Sequence[int]) -> bool:
        """Tell of a block what there is room for, without waiting.

        Args:
            block: the next block; those that lie before it had nothing to tell.
            matching: its transactions that are told of.

        Returns:
            Whether that was all of it.
        """
        if block.number != self._block:
            self._block, self._transaction = block.number, 0
        self._lacking = 0
        left = matching
        if self._transaction:
            left = [index for index in matching if index >= self._transaction]
        notices, told = block.notices, 0
        for index in left[:_NOTICES_A_TURN]:
            notice = notices.notice(index, payload=self._payload, last=index == left[-1])
            if not self._may_send(len(notice)):
                break
            self._session.send(notice)
            self._transaction = index + 1
            told += 1
        _TRANSACTIONS.inc(told)
        if told < len(left):
            return False
        self._block, self._transaction = block.number + 1, 0
        if left:
            self._marked = self._block
        return True

    def mark(self, block: ChannelBlock) -> None:
        """Tell that nothing up to the end of a block is left to tell, unless it does not read, or
        has read further by itself."""
        if block.number + 1 < self._block:
            return
        self._block, self._transaction = block.number + 1, 0
        if self._marked != self._block and not self._session.full:
            self._send_marker(block.notices.end)

    def blocks_behind(self) -> Mapping[str, int]:
        """How many blocks it has yet to read, by channel."""
        behind = 0 if self in self._head else self._channel.height - self._block
        return {self._channel.name: behind} if behind else {}

    async def _read(self) -> None:
        await self._turns.take()
        block = self._channel.recent(self._block) or await self._channel.read(self._block)
        if self._matched != block.number:
            kinds, number = block.notices.kinds, block.number
            if len(kinds) * self.wanted.effort > _EFFORT_A_TURN:
                del block
                await self._match(number, kinds)
                return
            self._matching = self._find(kinds, 0, len(kinds))
            self._matched = number
            del kinds
        told = self.tell(block, self._matching)
        end = block.notices.end
        # Nothing large is held while waiting: many may wait, each for another block.
        del block
        if not told:
            await self._session.drained()
            if self._lacking:
                await self._room.wait_for(self._session, self._lacking)
                self._granted = self._lacking
        elif self._marked != self._block and self._is_time_to_mark():
            await self._session.drained()
            self._send_marker(end)

    async def _match(self, number: int, kinds: Sequence[Kind]) -> None:
        """Find what is told of a block over several turns."""
        some = max(1, _EFFORT_A_TURN // self.wanted.effort)
        matching: list[int] = []
        for begin in range(0, len(kinds), some):
            if begin:
                await self._turns.take()
            matching += self._find(kinds, begin, begin + some)
        self._matching, self._matched = matching, number

    def _find(self, kinds: Sequence[Kind], begin: int, end: int) -> list[int]:
        matches = self.wanted.matches
        return [index for index, kind in enumerate(kinds[begin:end], begin) if matches(kind)]

    def _is_time_to_mark(self) -> bool:
        return self._block >= self._channel.height or self._block - self._marked >= MARKER_BLOCKS

    def _send_marker(self, end: bytes) -> None:
        self._session.send(end)
        self._marked = self._block
        _POSITIONS.inc()

    def _may_send(self, size: int) -> bool:
        limit = self._session.stream.max_message_bytes
        if size > limit:
            self._session.finish(
                CloseReason.EVENT_TOO_LARGE,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"an event for this client has {size} bytes, above the limit of {limit}; subscribe "
                "without payload, or raise peer.events.maxSendMsgSize",
            )
            return False
        if self._session.full:
            return False
        if self._granted >= size or self._room.take(self._session, size):
            self._granted = 0
            return True
        self._lacking = size
        return False
