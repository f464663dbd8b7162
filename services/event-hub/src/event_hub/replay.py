"""The past of a channel for a Chat consumer that named the block to begin with.

A replay pulls blocks at the pace of its consumer, from those that the hub keeps or else from the
source. What happens meanwhile is withheld from the consumer, and comes when its turn comes; once
everything was told, the consumer is live from the next block on.

A block's events come in the order in which they happened, and FILTEREDBLOCK and BLOCK after all
others: who has seen one of them has seen the block, and resumes with the next one.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import grpc

from event_hub import metrics
from event_hub.channels.block import ChannelBlock
from event_hub.channels.channel import Channel
from event_hub.events import IN_ORDER, HubEvent, Kind
from event_hub.interests import Interests
from event_hub.outbox import Outbox
from event_hub.readers import Rights
from event_hub.room import Room
from event_hub.session import CloseReason, StreamEnded
from event_hub.turns import Turns
from selvedge_common.logs import get_logger
from selvedge_common.protoutil.errors import BlockUnavailable
from selvedge_protos.peer import events_pb2

log = get_logger("eventhub.replay")

# Events that one replay tells before it is another's turn.
EVENTS_A_TURN = 64

# Room is taken for so many bytes at a time, since asking costs more than sending a small event.
PORTION_BYTES = 16 * 1024

# Seconds until a block that no source gives is asked for again, at first and at most.
RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 10.0

FAULT = "the event hub could not tell this client the past, by a fault of its own; connect again"


@dataclass(frozen=True)
class Sharing:
    """What all replays of a hub share.

    Args:
        interests: who wants what.
        room: the room for what waits for all that read the past.
        turns: whose turn it is.
    """

    interests: Interests[Outbox]
    room: Room
    turns: Turns


class Replay:
    """One channel's past on its way to one consumer.

    Args:
        channel: the channel.
        start: the number of the first block to tell; blocks below it are never told.
        outbox: the consumer's.
        rights: what the consumer may read.
        sharing: what it shares with the others.
    """

    def __init__(
        self, channel: Channel, start: int, outbox: Outbox, rights: Rights, sharing: Sharing
    ) -> None:
        self.channel = channel
        self._outbox = outbox
        self._rights = rights
        self._interests = sharing.interests
        self._room = sharing.room
        self._turns = sharing.turns
        # The next event: of which block, of which of its types, and which of those.
        self._number = start
        self._kind = 0
        self._index = 0
        # Bytes that may be sent: there is room for them.
        self._granted = 0
        self._task: asyncio.Task[None] | None = None
        self._interests.withhold(outbox, channel.name)
        self._room.join(outbox)
        outbox.replaying.add(channel.name)

    @property
    def behind(self) -> int:
        """How many blocks the consumer has yet to get, of those that the hub has."""
        return max(0, self.channel.height - self._number)

    def go_on(self) -> None:
        """Tell blocks from where it stopped, unless it does already or the consumer is live."""
        if self._task is None and self.channel.name in self._outbox.replaying and self._kinds():
            self._task = asyncio.create_task(self._run(), name="replay")

    def stop(self) -> None:
        """End it, with its consumer."""
        self.channel.withdraw(self._go_live)
        self._room.leave(self._outbox)
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        """Tell blocks until all were told, or the consumer is registered for none any more."""
        try:
            with metrics.REPLAYS.track_inprogress():
                while self.behind and self._kinds() and not self._outbox.closed:
                    await self._outbox.drained()
                    needs = await self._go_a_step()
                    if needs:
                        await self._room.wait_for(self._outbox, needs)
                        self._granted = needs
            if self._kinds() and not self._outbox.closed:
                self.channel.at_next_block(self._go_live)
        except StreamEnded as end:
            self._outbox.close(end.reason, end.code, end.sentence)
        except Exception:
            log.exception("fault with a replay", peer=self._outbox.peer)
            self._outbox.close(CloseReason.HUB_FAULT, grpc.StatusCode.INTERNAL, FAULT)
        finally:
            self._task = None

    def _go_live(self, block: ChannelBlock) -> None:
        """Release the channel as a block begins: the first one that was not told here."""
        if block.number == self._number:
            self._outbox.replaying.discard(self.channel.name)
            self._interests.release(self._outbox, self.channel.name)
            if not self._outbox.replaying:
                self._room.leave(self._outbox)
        elif block.number < self._number:
            # The consumer has heard more than this hub: it listened to another one before.
            self.channel.at_next_block(self._go_live)
        else:
            # The hub begins with a later block than the one that is next here.
            self.go_on()

    async def _go_a_step(self) -> int:
        """Read a block and tell of it in turn; gives what `_tell` gives, and holds no block."""
        block = await self._read()
        await self._turns.take()
        return self._tell(block)

    async def _read(self) -> ChannelBlock:
        """Give the next block, however long it takes: the consumer never misses one."""
        pause = 0.0
        while True:
            try:
                return await self.channel.read(self._number)
            except BlockUnavailable as error:
                metrics.REPLAY_READS_FAILED.labels(channel=self.channel.name).inc()
                if not pause:
                    log.warning(
                        "block not available; a consumer waits for it",
                        channel=self.channel.name,
                        block=self._number,
                        peer=self._outbox.peer,
                        reason=str(error),
                    )
            pause = min(2 * pause or RETRY_SECONDS, LONGEST_RETRY_SECONDS)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    def _tell(self, block: ChannelBlock) -> int:
        """Tell of a block what the consumer wants, until that has enough or it is another's turn.

        The block is read again for what is left of it, so that none is held by who waits.

        Returns:
            The bytes of the next event, if it stopped since there is no room for that.
        """
        self._rights.check(block.channel)
        kinds = self._kinds()
        if not kinds:
            # It changed its mind while the block was read.
            return 0
        told = Counter[Kind]()
        needs = 0
        for number, event in enumerate(self._rest(block, kinds)):
            if self._outbox.full or number == EVENTS_A_TURN:
                break
            size = len(event.message)
            if size > self._granted and not self._take_room(size):
                needs = size
                break
            self._granted -= size
            self._outbox.offer(event.message)
            told[event.type] += 1
        else:
            self._number += 1
            self._kind = self._index = 0
        for kind, count in told.items():
            metrics.EVENTS_DELIVERED.labels(type=events_pb2.EventType.Name(kind)).inc(count)
        return needs

    def _take_room(self, size: int) -> bool:
        """Take room for the next event, and where there is for some that follow it."""
        for portion in (max(size, PORTION_BYTES), size):
            if self._room.take(self._outbox, portion):
                self._granted = portion
                return True
        return False

    def _rest(self, block: ChannelBlock, kinds: set[Kind]) -> Iterator[HubEvent]:
        """Give what is left of the block's events and the consumer is registered for, in order."""
        try:
            for kind in IN_ORDER[self._kind :]:
                if kind in kinds:
                    for event in islice(block.events(kind), self._index, None):
                        if self._interests.wants(self._outbox, event):
                            yield event
                        self._index += 1
                self._kind += 1
                self._index = 0
        except Exception:
            # As in the processor: news that cannot be told must not silence all that comes after.
            metrics.PUBLICATIONS_FAILED.inc()
            log.exception("events could not be built; a consumer misses them", block=block.number)

    def _kinds(self) -> set[Kind]:
        return self._interests.kinds(self._outbox, self.channel.name)
