"""The way from whoever has news to the outboxes: one bounded buffer and one loop behind it.

The buffer and its timeout are those of Fabric's event processor (events/producer/events.go of
1.0.6) and concern only who enters the buffer. Delivery of what happens now does not wait for a
consumer that falls behind the others.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass

import grpc

from event_hub import metrics
from event_hub.consumers import Consumers
from event_hub.events import BLOCK, CHAINCODE, FILTEREDBLOCK, REJECTION, HubEvent
from event_hub.interests import Interests, Wanted
from event_hub.outbox import Outbox
from event_hub.session import CloseReason
from selvedge_common.logs import get_logger
from selvedge_protos.peer import events_pb2

log = get_logger("eventhub.processor")

FAULT = "the event hub could not give this client an event, by a fault of its own; connect again"


class BufferFull(Exception):
    """A publisher's event found the buffer full for as long as ``peer.events.timeout`` allows."""


@dataclass(frozen=True, slots=True)
class Publication:
    """News whose events are built when their turn comes, and only those somebody wants.

    Args:
        events: builds the events, given a function that tells whether anybody is registered for
            an event type on a channel.
        size: about how many bytes it takes while it waits.
        begin: called when its turn has come, before the first of them is built.
        handed_over: called once all of them were offered to the outboxes.
        history: whether this is old news, told faster than it happened: then consumers that read
            are waited for when they fall behind.
        published: whether it is a producer's: no ledger has it, and nobody can read it again.
    """

    events: Callable[[Wanted], Iterable[HubEvent]]
    _: KW_ONLY
    size: int = 0
    begin: Callable[[], None] = lambda: None
    handed_over: Callable[[], None] = lambda: None
    history: bool = False
    published: bool = False


class Processor:
    """Distributes publications to the consumers interested in them, in the order they came.

    Args:
        interests: who wants what.
        consumers: all consumers; they say when those that are behind have caught up.
        buffer_size: how many publications may wait (``peer.events.buffersize``).
        buffer_bytes: how many bytes of a source's blocks may wait (``peer.events.bufferBytes``);
            one that is larger may wait alone.
        timeout: seconds a publisher's event waits for room (``peer.events.timeout``): below 0 not
            at all, 0 for ever, above 0 that long.
    """

    def __init__(
        self,
        interests: Interests[Outbox],
        consumers: Consumers,
        buffer_size: int,
        buffer_bytes: int,
        timeout: float,
    ) -> None:
        self._interests = interests
        self._consumers = consumers
        self._timeout = timeout
        self._buffer: asyncio.Queue[Publication] = asyncio.Queue(buffer_size)
        self._max_bytes = buffer_bytes
        self._bytes = 0
        self._relief = asyncio.Event()
        self._delivered = {
            kind: metrics.EVENTS_DELIVERED.labels(type=events_pb2.EventType.Name(kind))
            for kind in (BLOCK, FILTEREDBLOCK, CHAINCODE, REJECTION)
        }
        metrics.PROCESSOR_DEPTH.set_function(self._buffer.qsize)
        metrics.PROCESSOR_BYTES.set_function(lambda: self._bytes)

    async def put(self, publication: Publication) -> None:
        """Enter the buffer, waiting for room for as long as it takes: the way of a source."""
        while not self._has_room_for(publication.size):
            self._relief.clear()
            await self._relief.wait()
        self._bytes += publication.size
        await self._buffer.put(publication)

    async def send(self, event: HubEvent) -> None:
        """Enter the buffer with one event, waiting as the timeout says: the way of a publisher.

        Fabric's Send (events/producer/events.go of 1.0.6), with its error.

        Args:
            event: serialised already, and offered to whoever is interested when its turn comes.

        Raises:
            BufferFull: there was no room in time; the event is dropped.
        """
        publication = Publication(lambda _wanted: (event,), published=True)
        try:
            if self._timeout < 0:
                self._buffer.put_nowait(publication)
            elif self._timeout == 0:
                await self._buffer.put(publication)
            else:
                async with asyncio.timeout(self._timeout):
                    await self._buffer.put(publication)
        except (asyncio.QueueFull, TimeoutError):
            metrics.PUBLICATIONS_DROPPED.inc()
            raise BufferFull(
                f"could not send the blocking event: {self._buffer.maxsize} are waiting; "
                "send more slowly, or raise peer.events.buffersize or peer.events.timeout"
            ) from None

    async def run(self) -> None:
        """Distribute, for as long as it runs, what enters the buffer."""
        while True:
            publication = await self._buffer.get()
            await self._distribute(publication)
            self._buffer.task_done()
            self._bytes -= publication.size
            self._relief.set()
            # A full buffer must not keep the streams from writing what they were just given.
            await asyncio.sleep(0)

    async def drain(self, seconds: float) -> None:
        """Distribute what has entered the buffer, for so long; of what is left then, what producers
        published, without waiting for anybody. The rest is read again after a restart."""
        try:
            async with asyncio.timeout(seconds):
                await self._buffer.join()
        except TimeoutError:
            log.warning("stopping with news that were not told yet", number=self._buffer.qsize())
            while not self._buffer.empty():
                publication = self._buffer.get_nowait()
                if publication.published:
                    for event in self._build(publication):
                        consumers = self._interests.consumers(event)
                        for consumer in consumers:
                            self._give(consumer, event.message)
                        self._delivered[event.type].inc(len(consumers))

    def _has_room_for(self, size: int) -> bool:
        return not self._bytes or self._bytes + size <= self._max_bytes

    async def _distribute(self, publication: Publication) -> None:
        publication.begin()
        for event in self._build(publication):
            await self._offer(event, history=publication.history)
        publication.handed_over()

    def _build(self, publication: Publication) -> Iterator[HubEvent]:
        try:
            yield from publication.events(self._interests.wanted)
        except Exception:
            # News that cannot be told must not silence all that comes after it.
            metrics.PUBLICATIONS_FAILED.inc()
            log.exception("events could not be built; consumers miss them")

    async def _offer(self, event: HubEvent, *, history: bool) -> None:
        consumers = self._interests.consumers(event)
        if not consumers:
            return
        behind, message = [], event.message
        # Where there is room for all of them, it is counted once.
        roomy = self._consumers.roomy(len(message) * len(consumers))
        for consumer in consumers:
            if not roomy and self._consumers.crowded(len(message)):
                await self._consumers.make_room(len(message))
            if not self._give(consumer, message):
                behind.append(consumer)
        self._delivered[event.type].inc(len(consumers))
        # Where everybody is behind, it is the hub that is too fast, and not one of them too slow.
        if behind and (history or len(behind) == len(consumers)):
            await self._consumers.catch_up(behind)

    def _give(self, consumer: Outbox, message: bytes) -> bool:
        """Offer a message to one consumer; whether it keeps up."""
        try:
            return consumer.offer(message)
        except Exception:
            log.exception("fault with a consumer", peer=consumer.stream.peer)
            consumer.close(CloseReason.HUB_FAULT, grpc.StatusCode.INTERNAL, FAULT)
            return True
