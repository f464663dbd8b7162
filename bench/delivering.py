"""From a block that a peer has committed to the events of it, at a pace, through the hub alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bench.event_source import MOMENT
from bench.fanout import CHAT, METHODS, SECURITIES, consumers_of
from bench.hub_process import HubProcess, hub_process
from bench.latency import percentile
from bench.load_client import LoadClient
from bench.process import PATIENCE
from bench.progress import say
from bench.row import Row
from bench.site import Site
from selvedge_protos.peer.events_pb2 import Event

GROUP = "latency, commit → delivery by the hub"
PACES = (100, 1000)
"""Events a second."""
CONSUMERS = 100
"""Beside the one who looks at the clock."""
EVENT = 1024
"""Bytes of each payload."""
_LOOK = 0.05


async def measure(site: Site) -> list[Row]:
    """In plaintext and behind mTLS, with one consumer and with many."""
    rows: list[Row] = []
    for secure in (False, True):
        async with hub_process(site.house, secure=secure) as hub:
            for per_second in PACES:
                for consumers in (0, CONSUMERS):
                    rows += await _measure(site, hub, per_second, consumers)
    return rows


async def _measure(site: Site, hub: HubProcess, per_second: int, consumers: int) -> Sequence[Row]:
    name = f"{SECURITIES[hub.secure]}, {per_second:,}/s to {consumers + 1}"
    say(f"{GROUP}, {name}")
    seconds = site.effort.delivering_seconds
    async with (
        site.load_client(
            *("watch", hub.address, METHODS[CHAT]),
            request=site.client.registration(),
            secure=hub.secure,
        ) as watching,
        consumers_of(site, hub, METHODS[CHAT], max(1, consumers)) as others,
    ):
        count = await hub.source("pace", seconds, per_second, EVENT)
        await others.round(count)
        taken = await _arrivals(watching, count)
    return [
        Row(GROUP, f"{name}, p{share}", percentile(taken, share) / 1e6, "ms") for share in (50, 99)
    ]


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
