"""Whoever joins wherever it likes, and resumes by the rule of its service, is told everything once
and in order, however often the hub and its source are killed and stopped meanwhile."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import grpc.aio
import pytest
from block_readers import BlockReader
from eventhouse import EOF, PATIENCE, House, Running, dialled, interest
from subscribers import Subscriber

from event_hub.events import CHAINCODE, FILTEREDBLOCK
from selvedge_common.protoutil.block_events import chaincode_events
from selvedge_common.signed_requests import sign_request
from selvedge_protos.peer import events_pb2
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import (
    Notice,
    Position,
    SubscribeRequest,
)

LAST = 80
LISTENERS = 12
FAILURES = 3
RETRY_SECONDS = 0.1
# Little is kept, so that the past comes from the source again.
SETTINGS = {
    "PEER_EVENTS_RECENTBYTES": "64KB",
    "SOURCE_HISTORYBYTES": "64KB",
    "SOURCE_ANSWERTIMEOUT": "5s",
}


class Door:
    """Where the hub is found, while there is one."""

    def __init__(self, hub: Running) -> None:
        self.hub = hub
        self._open = asyncio.Event()
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    def open(self, hub: Running) -> None:
        self.hub = hub
        self._open.set()

    async def enter(self) -> Running:
        await self._open.wait()
        return self.hub


class Listener(ABC):
    """One that follows the channel from a block on.

    Attributes:
        start: the first block.
        next: the first block that it was not told all of.
        heard: the names of the events that it was told of.
    """

    def __init__(self, house: House, start: int) -> None:
        self.start = self.next = start
        self.heard: list[str] = []
        self.house = house

    async def follow(self, door: Door) -> None:
        """Hear everything up to the last block."""
        while self.next <= LAST:
            # A call may have ended before it is written to.
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self.listen(await door.enter())
            await asyncio.sleep(RETRY_SECONDS)

    @abstractmethod
    async def listen(self, hub: Running) -> None:
        """Hear what comes until the last block, or until the stream ends."""


class Chatter(Listener):
    """What it has heard of an unfinished block it forgets, and hears again."""

    async def listen(self, hub: Running) -> None:
        client = self.house.client(hub, start=f"mychannel={self.next}")
        interests = [interest(CHAINCODE, "cc"), interest(FILTEREDBLOCK)]
        await client.say(events_pb2.Event(register=events_pb2.Register(events=interests)))
        unfinished: list[str] = []
        async for answer in answers(client.call):
            event = events_pb2.Event.FromString(answer)
            if event.HasField("chaincode_event"):
                unfinished.append(event.chaincode_event.event_name)
            elif event.HasField("filtered_block"):
                assert event.filtered_block.number == self.next
                self.heard += unfinished
                unfinished = []
                self.next += 1
            if self.next > LAST:
                break
        await client.close()


class Reader(Listener):
    async def listen(self, hub: Running) -> None:
        reader = BlockReader(self.house, hub)
        await reader.ask(self.next)
        async for answer in answers(reader.call):
            response = events_pb2.DeliverResponse.FromString(answer)
            if not response.HasField("block"):
                break  # the hub is not as far as this one is
            assert response.block.header.number == self.next
            for envelope in response.block.data.data:
                self.heard += [event.event_name for event, _ in chaincode_events(envelope)]
            self.next += 1
            if self.next > LAST:
                break
        await reader.leave()


class Follower(Listener):
    """One that subscribes, and goes on in the middle of a block."""

    _after: Position | None = None

    async def listen(self, hub: Running) -> None:
        organisation = self.house.organisation
        opened, digest = dialled(organisation, hub.address)
        request = SubscribeRequest(channel="mychannel", block=self.start)
        if self._after is not None:
            request.after.CopyFrom(self._after)
        signed = sign_request(request, organisation.identity("user"), tls_cert_hash=digest)
        subscriber = Subscriber(opened, signed)
        async for answer in answers(subscriber.call):
            notice = Notice.FromString(answer)
            if notice.HasField("transaction"):
                self.heard.append(notice.transaction.event.event_name)
            if notice.HasField("position"):
                self._after = notice.position
                rest = notice.position.HasField("transaction")
                self.next = notice.position.block + (not rest)
            if self.next > LAST:
                break
        await subscriber.leave()


async def answers(call: Any) -> AsyncIterator[bytes]:
    """What comes until the stream ends, whatever its status."""
    with suppress(grpc.aio.AioRpcError):
        while (answer := await call.read()) is not EOF:
            yield answer


def names(first: int, last: int) -> list[str]:
    """Those of the events in these blocks. Block 0 has none."""
    return [f"{number}.{n}" for number in range(max(1, first), last + 1) for n in range(2)]


async def fail(house: House, door: Door, chosen: random.Random) -> None:
    """Kill the hub or stop it, together with its source now and then, and bring them back."""
    await asyncio.sleep(chosen.uniform(0, 0.1))
    door.close()
    if away := chosen.random() < 0.5:
        await house.peer.stop()
    if chosen.random() < 0.7:
        await door.hub.kill()
    else:
        await door.hub.stop()
    door.open(await house.hub(**SETTINGS))
    if away:
        await house.peer.start()


async def tell(house: House, chosen: random.Random) -> None:
    """Commit blocks up to the last one."""
    ledger = house.ledger
    while ledger.height <= LAST:
        payload = bytes(chosen.choice((10, 1_000, 20_000)))
        number = ledger.height
        await ledger.commit(
            *(ledger.transaction(event=name, payload=payload) for name in names(number, number))
        )
        await asyncio.sleep(chosen.uniform(0, 0.02))


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_left_out_or_repeated(house: House, seed: int) -> None:
    chosen = random.Random(seed)
    door = Door(await house.hub(**SETTINGS))
    telling = asyncio.create_task(tell(house, chosen))
    kinds: Sequence[type[Listener]] = (Chatter, Reader, Follower)
    listeners: list[Listener] = []
    following: list[asyncio.Task[None]] = []

    async def join() -> None:
        for _ in range(LISTENERS // FAILURES):
            await asyncio.sleep(chosen.uniform(0, 0.1))
            # Some begin where the hub is not yet.
            listener = chosen.choice(kinds)(house, chosen.randrange(house.ledger.height + 2))
            listeners.append(listener)
            following.append(asyncio.create_task(listener.follow(door)))

    for _ in range(FAILURES):
        await asyncio.gather(join(), fail(house, door, chosen))
    async with asyncio.timeout(2 * PATIENCE):
        await telling
        await asyncio.gather(*following)
    for listener in listeners:
        told = f"{type(listener).__name__} from block {listener.start} on"
        assert listener.heard == names(listener.start, LAST), told
