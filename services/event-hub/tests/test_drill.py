"""The drill: of a hundred consumers fifteen go wrong, in every way there is, and come back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from eventhouse import Client, House, interest
from hub_process import PATIENCE, hub_process
from proxy import Network, Proxy

from event_hub.events import CHAINCODE, FILTEREDBLOCK
from selvedge_protos.peer import events_pb2

MEGABYTE = 1024 * 1024
BLOCKS = 120
EVENTS = 2  # in each block
PAYLOAD = b"x" * 10_000
GOOD_BLOCKS = 10  # before anything goes wrong
AHEAD = 10  # blocks the chain may be ahead of the slowest reader

READERS, BAD = 85, 5

SETTINGS = {
    "PEER_EVENTS_OUTBOX_MAXEVENTS": "60",
    "PEER_EVENTS_OUTBOX_TOTALBYTES": "32MB",
    "PEER_EVENTS_SENDTIMEOUT": "2s",
    # Who comes back finds the newest blocks here, and the others at the source.
    "PEER_EVENTS_RECENTBYTES": "1MB",
    "PEER_EVENTS_BUFFERBYTES": "4MB",
    "SOURCE_HISTORYBYTES": "1MB",
}
# What these settings let the hub keep, and what a hundred connections and the allocator may take.
BOUND = (32 + 1 + 4 + 1 + 32) * MEGABYTE

# Small windows, so that a client which does not read is full after little.
NARROW = (("grpc.http2.lookahead_bytes", 65536), ("grpc.http2.bdp_probe", 0))


@dataclass
class Listener:
    """A client that keeps its place: FILTEREDBLOCK says that the block was told.

    What it heard of a block that was not finished it forgets, and hears again.
    """

    house: House
    position: int = 0
    heard: list[str] = field(default_factory=list)
    client: Client | None = None
    _unfinished: list[str] = field(default_factory=list)

    async def connect(self, address: str, *, resume: bool = False, narrow: bool = False) -> None:
        self._unfinished = []
        self.client = self.house.client(
            address,
            options=NARROW if narrow else (),
            start=f"mychannel={self.position + 1}" if resume else None,
        )
        await self.client.register(interest(CHAINCODE, "cc"), interest(FILTEREDBLOCK))

    async def listen(self, last: int) -> None:
        """Hear everything up to a block."""
        assert self.client is not None
        while self.position < last:
            self._take(await self.client.hear())

    def _take(self, event: events_pb2.Event) -> None:
        if event.HasField("chaincode_event"):
            self._unfinished.append(event.chaincode_event.event_name)
            return
        assert event.filtered_block.number == self.position + 1
        self.heard += self._unfinished
        self._unfinished = []
        self.position += 1


@asynccontextmanager
async def proxies(upstream: str) -> AsyncIterator[tuple[Proxy, Proxy]]:
    both = (Proxy(upstream), Proxy(upstream))
    try:
        yield both
    finally:
        for proxy in both:
            await proxy.stop()


async def until_reached(listeners: Sequence[Listener], block: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while any(listener.position < block for listener in listeners):
            await asyncio.sleep(0.001)


async def commit(house: House, number: int) -> None:
    ledger = house.ledger
    assert ledger.height == number
    await ledger.commit(
        *(ledger.transaction(event=name, payload=PAYLOAD) for name in names(number))
    )


def names(number: int) -> list[str]:
    return [f"{number}.{n}" for n in range(EVENTS)]


def story(last: int) -> list[str]:
    """What there is to hear up to a block."""
    return [name for number in range(1, last + 1) for name in names(number)]


async def come_back(listener: Listener, address: str) -> None:
    await listener.connect(address, resume=True)
    await listener.listen(BLOCKS + 5)


@pytest.mark.timeout(180)
async def test_drill(house: House) -> None:
    """Fifteen of a hundred stop reading, read a byte a second, or vanish: nobody else notices,
    memory stays within its bounds, and the fifteen miss nothing once they are back."""
    async with (
        hub_process(house, **SETTINGS) as hub,
        proxies(hub.address) as (trickling, vanishing),
    ):
        await hub.until_metric("eventhub_source_height", 1)
        readers, stopped, slow, gone = (
            [Listener(house) for _ in range(number)] for number in (READERS, BAD, BAD, BAD)
        )
        for group, address in (
            (readers, hub.address),
            (stopped, hub.address),
            (slow, trickling.address),
            (gone, vanishing.address),
        ):
            await asyncio.gather(
                *(each.connect(address, narrow=group is not readers) for each in group)
            )
        bad = [*stopped, *slow, *gone]
        before = hub.resident_bytes

        reading = [asyncio.create_task(reader.listen(BLOCKS)) for reader in readers]
        most = 0
        for number in range(1, BLOCKS + 1):
            if number == GOOD_BLOCKS + 1:
                await asyncio.gather(*(each.listen(GOOD_BLOCKS) for each in bad))
                trickling.network = Network.TRICKLE
                vanishing.network = Network.DEAD
            await commit(house, number)
            await until_reached(readers, number - AHEAD)
            most = max(most, hub.resident_bytes)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*reading)
        # Everybody who went wrong is let go, for a reason that says so.
        await hub.until_metric("eventhub_consumers_closed_total", len(bad))
        reasons = [
            await hub.metric(f'eventhub_consumers_closed_total{{reason="{reason}"}}')
            for reason in ("SLOW_CONSUMER", "SEND_TIMEOUT")
        ]
        assert sum(reasons) == len(bad)
        assert await hub.metric('eventhub_consumers{kind="CHAT"}') == READERS
        assert all(reader.heard == story(BLOCKS) for reader in readers)

        # They come back on another way, and the chain goes on meanwhile.
        returning = [asyncio.create_task(come_back(each, hub.address)) for each in bad]
        for number in range(BLOCKS + 1, BLOCKS + 6):
            await commit(house, number)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*returning)
            await asyncio.gather(*(reader.listen(BLOCKS + 5) for reader in readers))
        most = max(most, hub.resident_bytes)
        assert all(each.heard == story(BLOCKS + 5) for each in [*readers, *bad])
        assert most - before < BOUND
