"""What fails, once in a round: each has its own way back to where all is well again.

A failure is over before the consumers have to have heard everything, unless what is left has to do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

from bench.drill.account import Untrue
from bench.drill.ground import Ground
from bench.drill.network import Wire
from bench.drill.publisher import Publisher

_LONGEST = 0.7
"""Seconds that something is away, at most."""
_STARTING = 1.5
"""Seconds in which a process that was launched serves, at most."""

Failure: TypeAlias = Callable[[Ground, random.Random], AbstractAsyncContextManager[None]]
"""Fails where it begins, and is mended for good when it ends: what is within has to go on."""


async def _while(chosen: random.Random, longest: float = _LONGEST) -> None:
    await asyncio.sleep(chosen.uniform(0, longest))


@asynccontextmanager
async def hub_killed(ground: Ground, chosen: random.Random) -> AsyncIterator[None]:
    """A hub is killed, and started again; and killed once more while it starts, now and then."""
    hub = chosen.choice(ground.hubs).process
    await hub.kill()
    await _while(chosen)
    if chosen.random() < 0.4:
        await hub.launch()
        await _while(chosen, _STARTING)
        await hub.kill()
    await hub.start()
    yield


@asynccontextmanager
async def hub_stopped(ground: Ground, chosen: random.Random) -> AsyncIterator[None]:
    """A hub is asked to stop: it gives its consumers what it has, tells a producer what became of
    its events, and ends in order."""
    hub = chosen.choice(ground.hubs)
    async with Publisher(ground.producer, hub.front.address, busy=chosen.random() < 0.5):
        status = await hub.process.stop()
    if status:
        raise Untrue(f"{hub.name} ended with status {status} when it was asked to stop")
    await _while(chosen)
    await hub.process.start()
    yield


@asynccontextmanager
async def hub_lost(ground: Ground, chosen: random.Random) -> AsyncIterator[None]:
    """A hub is gone, and the other one, which takes over, is behind."""
    lost, other = chosen.sample(ground.hubs, 2)
    for way in other.ways:
        way.silence()
    await _while(chosen)
    await lost.process.kill()
    await _while(chosen)
    for way in other.ways:
        way.mend()
    yield
    await lost.process.start()


@asynccontextmanager
async def source_killed(ground: Ground, chosen: random.Random) -> AsyncIterator[None]:
    """A source, or both, are killed, and started again."""
    killed = chosen.choice((ground.sources[:1], ground.sources[1:], ground.sources))
    for source in killed:
        await source.process.kill()
    await _while(chosen)
    for source in killed:
        await source.process.start()
    yield


@asynccontextmanager
async def source_lost(ground: Ground, chosen: random.Random) -> AsyncIterator[None]:
    """A source is gone, and the other one, which has to do, is behind."""
    lost, other = chosen.sample(ground.sources, 2)
    other.hold()
    await _while(chosen)
    await lost.process.kill()
    await _while(chosen)
    other.release()
    yield
    await lost.process.start()


@asynccontextmanager
async def sources_cut_off(ground: Ground, chosen: random.Random) -> AsyncIterator[None]:
    """A hub does not reach its sources."""
    await _fail(chosen.choice(ground.hubs).ways, chosen)
    yield


@asynccontextmanager
async def consumers_cut_off(ground: Ground, chosen: random.Random) -> AsyncIterator[None]:
    """Consumers do not reach one of the hubs, or both."""
    hubs = chosen.choice((ground.hubs[:1], ground.hubs[1:], ground.hubs))
    await _fail([hub.front for hub in hubs], chosen)
    yield


async def _fail(wires: Sequence[Wire], chosen: random.Random) -> None:
    """Cut wires or let them fall silent for a while; after silence, connections are often lost."""
    cut, lost = chosen.random() < 0.5, chosen.random() < 0.5
    for wire in wires:
        if cut:
            wire.cut()
        else:
            wire.silence()
    await _while(chosen)
    for wire in wires:
        if lost:
            wire.reset()
        wire.mend()


FAILURES: dict[str, Failure] = {
    "hub killed": hub_killed,
    "hub stopped": hub_stopped,
    "hub lost": hub_lost,
    "source killed": source_killed,
    "source lost": source_lost,
    "sources cut off": sources_cut_off,
    "consumers cut off": consumers_cut_off,
}
