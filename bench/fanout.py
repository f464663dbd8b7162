"""Chaincode events a second, from the event hub to its consumers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.process import PATIENCE
from bench.row import Row
from bench.site import Site, Usage, puts
from bench.wire import read, read_all

GROUP = "event fan-out, 1 KB"
EVENT = 1024
"""Bytes of each event's payload."""


async def measure(site: Site) -> list[Row]:
    """Let the hub catch up with many transactions at once, for 1 and for 10 consumers."""
    return [await _fan_out(site, consumers) for consumers in (1, 10)]


async def _fan_out(site: Site, consumers: int) -> Row:
    client, count = site.client, site.effort.events
    events = count * consumers
    calls = puts(count + 1, prefix=f"event-{consumers}", event=EVENT)
    first, *others = await client.transactions(calls)
    streams = [await client.consumer() for _ in range(consumers)]
    await client.commit([first])
    size, *_ = [len(await read(stream)) for stream in streams]
    await site.idle()
    hub = site.pid("event-hub")
    # Held while they are committed: afterwards it is its own pace that shows, not the committer's.
    with _held(hub):
        await client.commit(others)
        usage, started = Usage(hub), time.perf_counter()
    seconds = await _read(streams, count) - started
    cpu = usage.each(events)
    raw = [await site.raw_events(size) for _ in range(consumers)]
    usage, started = Usage(site.raw.pid), time.perf_counter()
    for stream in raw:
        await stream.write(str(count).encode())
    raw_seconds = await _read(raw, count) - started
    raw_cpu = usage.each(events)
    return Row(
        GROUP,
        f"to {consumers} consumers" if consumers > 1 else "to 1 consumer",
        events / seconds,
        "/s",
        raw=events / raw_seconds,
        cpu=cpu,
        raw_cpu=raw_cpu,
    )


async def _read(streams: list[Any], count: int) -> float:
    async with asyncio.timeout(PATIENCE):
        ended = await read_all(streams, count)
    for stream in streams:
        stream.cancel()
    return ended


@contextmanager
def _held(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
