"""Consumers of the hub that wait for events which do not come: what they take and cost."""

from __future__ import annotations

from bench.client import NAME
from bench.fanout import CHAT, DELIVER, METHODS, SECURITIES, consumers_of
from bench.hub_process import HubProcess, hub_process
from bench.load_client import LoadClient, Running
from bench.process import cpu_seconds, memory, settle
from bench.progress import say
from bench.row import Row, verdict
from bench.site import Site

GROUP = "idle consumers of the hub"
AIM = 40
"""KB that one may take."""
STREAMS = 100
"""On each connection, where they share one."""
ELSEWHERE = "elsewhere"
"""A chaincode that has no events."""
EVENTS, BYTES = 2000, 1024
"""For nobody, to see what they cost beside those who wait for others."""


async def measure(site: Site) -> list[Row]:
    """Open many, on shared connections and on their own; then tell of what they do not wait for."""
    total = site.effort.idle_consumers
    rows = [
        await _memory(site, secure, service, total, streams)
        for secure in (False, True)
        for service in (CHAT, DELIVER)
        for streams in (STREAMS, 1)
    ]
    return [*rows, await _cost(site, total)]


async def _memory(site: Site, secure: bool, service: str, total: int, streams: int) -> Row:
    say(f"{GROUP}, {service}, {SECURITIES[secure]}, {streams} a connection")
    async with hub_process(site.house, secure=secure) as hub:
        # The first are not counted: with them comes what a hub loads on its first stream.
        first = max(1, total // 10 // streams)
        others = total - first * streams
        async with _idle(site, hub, service, first, streams) as consumers:
            await settle([hub.pid])
            before = memory(hub.pid).pss
            await consumers.more(others)
            await settle([hub.pid])
            kilobytes = (memory(hub.pid).pss - before) * 1024 / others
    name = f"{service}, {SECURITIES[secure]}, {streams} a connection"
    return Row(
        GROUP,
        f"each of {total:,}, {name}",
        kilobytes,
        "KB",
        note=verdict(f"≤ {AIM} KB", kilobytes <= AIM),
    )


async def _cost(site: Site, total: int) -> Row:
    """Processor time for an event that one consumer waits for, with and without all the others."""
    say(f"{GROUP}, events for others")
    async with (
        hub_process(site.house, secure=False) as hub,
        consumers_of(site, hub, METHODS[CHAT], 1) as listening,
    ):
        alone = await _each(hub, listening)
        async with _idle(site, hub, CHAT, total // STREAMS, STREAMS):
            beside = await _each(hub, listening)
    note = f"without them {alone:.0f} µs; aim no more: {beside / alone:.2f} times"
    return Row(GROUP, f"an event beside {total:,} who wait for others", beside, "µs", note=note)


async def _each(hub: HubProcess, listening: LoadClient) -> float:
    await hub.source("events", EVENTS // 10, 10, BYTES)
    before = cpu_seconds(hub.pid)
    await hub.source("release")
    await listening.round(EVENTS)
    return (cpu_seconds(hub.pid) - before) / EVENTS * 1e6


def _idle(site: Site, hub: HubProcess, service: str, connections: int, streams: int) -> Running:
    chaincode = ELSEWHERE if service == CHAT else NAME
    return consumers_of(
        site, hub, METHODS[service], connections, streams=streams, chaincode=chaincode
    )
