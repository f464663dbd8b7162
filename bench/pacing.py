"""From sending a transaction to its commit and to its event, at a pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bench.client import check_ordered, committed, told
from bench.latency import EVENT, percentile
from bench.load_client import LoadClient
from bench.process import PATIENCE
from bench.row import Row, verdict
from bench.site import STREAM, Site, puts
from selvedge_common.protoutil.seek_request import FOREVER, NEWEST

GROUP = "latency at a pace"
WARM_UP = 20
"""Transactions that come before all others and are not counted."""
AIMS = {100: {50: 15, 99: 60}}
"""Milliseconds to the event: by transactions a second, and by percentile."""
RAW_PART = 4
"""The raw server gets one of so many."""
_LOOK = 0.05

Arrivals = dict[str, tuple[int, int]]
"""By a transaction's id: when a message came that names it, and the bytes of that."""


@dataclass(frozen=True)
class Clients:
    """Processes with a stream each.

    Attributes:
        ordering: sends transactions.
        raw: sends them to the raw server.
        blocks: sees commits, by DeliverFiltered.
        events: sees chaincode events, by Chat.
    """

    ordering: LoadClient
    raw: LoadClient
    blocks: LoadClient
    events: LoadClient


async def measure(site: Site) -> list[Row]:
    """Send transactions that were endorsed before, each when it is due."""
    async with _clients(site) as clients:
        await _measure(site, clients, 100, WARM_UP)
        rows = []
        for per_second, seconds in site.effort.paces:
            rows += await _measure(site, clients, per_second, int(per_second * seconds))
        return rows


@asynccontextmanager
async def _clients(site: Site) -> AsyncIterator[Clients]:
    addresses, client = site.house.addresses, site.client
    async with AsyncExitStack() as stack:

        async def open_(mode: str, address: str, method: str, request: bytes = b"") -> LoadClient:
            return await stack.enter_async_context(
                site.load_client(mode, address, method, request=request)
            )

        yield Clients(
            await open_("pace", addresses.orderer, "/orderer.AtomicBroadcast/Broadcast"),
            await open_("pace", site.raw.address, STREAM),
            await open_(
                *("watch", addresses.peer, "/protos.Deliver/DeliverFiltered"),
                client.seek(NEWEST, FOREVER),
            ),
            await open_("watch", addresses.events, "/protos.Events/Chat", client.registration()),
        )


async def _measure(site: Site, clients: Clients, per_second: int, count: int) -> list[Row]:
    calls = puts(count, prefix=f"pace-{per_second}-{count}", event=EVENT)
    transactions = await site.client.transactions(calls)
    envelopes = [each.envelope for each in transactions]
    await site.idle()
    answers = await clients.ordering.pace(envelopes, per_second)
    for answer in answers:
        check_ordered(answer.content)
    sent = {each.txid: answer.sent for each, answer in zip(transactions, answers, strict=True)}
    commits = await _arrivals(clients.blocks, sent.keys(), committed)
    events = await _arrivals(clients.events, sent.keys(), lambda event: [told(event)])
    await site.set_size(site.raw, next(size for _, size in events.values()))
    # For a part of the time, as it is always the same.
    echoed = await clients.raw.pace(envelopes[: -(-count // RAW_PART)], per_second)
    raw = [each.came - each.sent for each in echoed]

    def rows(what: str, arrivals: Arrivals, aims: Mapping[int, int]) -> Iterator[Row]:
        taken = [arrivals[txid][0] - moment for txid, moment in sent.items()]
        for share in (50, 99):
            milliseconds = percentile(taken, share) / 1e6
            note = verdict(f"≤ {aims[share]} ms", milliseconds <= aims[share]) if aims else ""
            name = f"{per_second:,}/s, submit → {what}, p{share}"
            raw_milliseconds = percentile(raw, share) / 1e6
            yield Row(GROUP, name, milliseconds, "ms", raw_milliseconds, note=note)

    return [
        *rows("commit, by DeliverFiltered", commits, {}),
        *rows("chaincode event, by Chat", events, AIMS.get(per_second, {})),
    ]


async def _arrivals(
    client: LoadClient, wanted: AbstractSet[str], named: Callable[[bytes], Sequence[str]]
) -> Arrivals:
    arrivals: Arrivals = {}
    async with asyncio.timeout(PATIENCE):
        while not arrivals.keys() >= wanted:
            await asyncio.sleep(_LOOK)
            for moment, message in await client.watched():
                arrivals.update((txid, (moment, len(message))) for txid in named(message))
    return arrivals
