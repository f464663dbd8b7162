"""From a block that a peer has committed to the events of it, at a pace, through the hub alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from bench.comparison import check
from bench.drill.network import Wire
from bench.event_source import MOMENT, paced
from bench.fanout import CHAT, METHODS, SECURITIES, consumers_of
from bench.hub_process import HubProcess, hub_process
from bench.latency import percentile
from bench.load_client import LoadClient
from bench.process import PATIENCE
from bench.progress import say
from bench.row import Row, verdict
from bench.site import Site
from selvedge_protos.peer.events_pb2 import Event

GROUP = "latency, commit → delivery by the hub"
PACES = (100, 1000)
"""Events a second."""
CONSUMERS = 100
"""Beside the one who looks at the clock."""
EVENT = 1024
"""Bytes of each payload."""
BAD = 5
"""Consumers of each kind that goes wrong, of CONSUMERS."""
BAD_AIM = 50.0
"""Milliseconds in which the others have nearly every event."""
_LOOK = 0.05


async def measure(site: Site) -> list[Row]:
    """In plaintext and behind mTLS, with one consumer, with many, and beside some that go wrong."""
    rows: list[Row] = []
    for secure in (False, True):
        async with hub_process(site.house, secure=secure) as hub:
            for per_second in PACES:
                for consumers in (1, CONSUMERS):
                    to = f"{consumers:,} consumers" if consumers > 1 else "1 consumer"
                    rows += await _measure(site, hub, per_second, consumers, to)
            async with _bad_consumers(site, hub):
                good = CONSUMERS - 3 * BAD
                taken = await _measure(
                    site, hub, PACES[-1], good, f"{good} consumers beside {3 * BAD} that go wrong"
                )
            rows += [*taken[:-1], replace(taken[-1], note=_verdict(taken[-1]))]
    return rows


def _verdict(row: Row) -> str:
    assert row.value is not None
    return verdict(f"≤ {BAD_AIM:g} ms", row.value <= BAD_AIM)


@asynccontextmanager
async def _bad_consumers(site: Site, hub: HubProcess) -> AsyncIterator[None]:
    """Some that register and stop reading, some that read a byte a second, and some that vanish
    without a word."""
    chat = METHODS[CHAT]
    async with (
        consumers_of(site, hub, chat, BAD),
        Wire(hub.address) as trickling,
        consumers_of(site, replace(hub, address=trickling.address), chat, BAD),
        Wire(hub.address) as dead,
        consumers_of(site, replace(hub, address=dead.address), chat, BAD),
    ):
        trickling.trickle()
        dead.silence()
        yield
        # Who reads nothing could not leave otherwise.
        trickling.reset()
        dead.reset()


async def _measure(
    site: Site, hub: HubProcess, per_second: int, consumers: int, to: str
) -> Sequence[Row]:
    """One consumer looks at the clock, and the others read."""
    name = f"{SECURITIES[hub.secure]}, {per_second:,}/s to {to}"
    say(f"{GROUP}, {name}")
    seconds = site.effort.delivering_seconds
    async with (
        site.load_client(
            *("watch", hub.address, METHODS[CHAT]),
            request=site.client.registration(),
            secure=hub.secure,
        ) as watching,
        _readers(site, hub, consumers - 1) as others,
    ):
        _, each, blocks = paced(seconds, per_second)
        count = each * blocks
        async with asyncio.TaskGroup() as at_once:
            at_once.create_task(hub.source("pace", seconds, per_second, EVENT))
            if others is not None:
                at_once.create_task(_read_all(others, count))
        taken = await _arrivals(watching, count)
    return [
        Row(GROUP, f"{name}, p{share}", percentile(taken, share) / 1e6, "ms") for share in (50, 99)
    ]


async def _read_all(readers: LoadClient, count: int) -> None:
    check("ours", await readers.round(count))


@asynccontextmanager
async def _readers(site: Site, hub: HubProcess, count: int) -> AsyncIterator[LoadClient | None]:
    if not count:
        yield None
        return
    async with consumers_of(site, hub, METHODS[CHAT], count) as readers:
        yield readers


async def _arrivals(watching: LoadClient, count: int) -> list[float]:
    """Nanoseconds that each event took."""
    taken: list[float] = []
    async with asyncio.timeout(PATIENCE):
        while len(taken) < count:
            await asyncio.sleep(_LOOK)
            for moment, message in await watching.watched():
                payload = Event.FromString(message).chaincode_event.payload
                (appended,) = MOMENT.unpack_from(payload)
                taken.append(moment - appended)
    return taken
