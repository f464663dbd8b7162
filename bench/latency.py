"""From sending a transaction to its event and to its commit, one at a time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence

from bench.client import check_ordered, told
from bench.process import PATIENCE
from bench.row import Row
from bench.site import Site, puts
from bench.wire import exchange, read

GROUP = "latency, idle system"
EVENT = 100
"""Bytes of the chaincode event's payload."""


async def measure(site: Site) -> list[Row]:
    """Submit transactions that were endorsed before, each once the one before has arrived."""
    client, count = site.client, site.effort.latencies
    transactions = await client.transactions(puts(count + 5, prefix="latency", event=EVENT))
    chat, ordering = await client.consumer(), await client.ordering()
    ordered, committed, heard = list[float](), list[float](), list[float]()
    size = 0

    async def event() -> list[str]:
        nonlocal size
        message = await read(chat)
        size = len(message)
        return [told(message)]

    await site.idle()
    async with client.commits() as commits:
        for transaction in transactions:
            commit = asyncio.create_task(_arrival(transaction.txid, commits.next))
            arrival = asyncio.create_task(_arrival(transaction.txid, event))
            await asyncio.sleep(0)  # so that both are waiting before it is sent
            sent = time.perf_counter()
            check_ordered(await exchange(ordering, transaction.envelope))
            ordered.append(time.perf_counter() - sent)
            async with asyncio.timeout(PATIENCE):
                committed.append(await commit - sent)
                heard.append(await arrival - sent)
    chat.cancel()
    raw = await _raw(site, transactions[0].envelope, size)
    return [
        *_rows("submit → ordered for good", ordered[-count:], raw),
        *_rows("submit → commit, by DeliverFiltered", committed[-count:], raw),
        *_rows("submit → chaincode event, by Chat", heard[-count:], raw),
    ]


async def _arrival(txid: str, following: Callable[[], Awaitable[list[str]]]) -> float:
    """The moment when what follows on a stream names the transaction."""
    while txid not in await following():
        pass
    return time.perf_counter()


async def _raw(site: Site, request: bytes, answer: int) -> list[float]:
    """How long a message of a transaction's size takes to be answered with one of an event's."""
    stream = await site.raw_stream(answer)
    seconds = []
    for _ in range(site.effort.latencies):
        sent = time.perf_counter()
        await exchange(stream, request)
        seconds.append(time.perf_counter() - sent)
    stream.cancel()
    return seconds


def _rows(name: str, seconds: Sequence[float], raw: Sequence[float]) -> list[Row]:
    return [
        Row(
            GROUP,
            f"{name}, p{share}",
            percentile(seconds, share) * 1000,
            "ms",
            percentile(raw, share) * 1000,
        )
        for share in (50, 95, 99)
    ]


def percentile(values: Sequence[float], share: int) -> float:
    """The smallest value that `share` percent of the values do not exceed."""
    return sorted(values)[math.ceil(len(values) * share / 100) - 1]
