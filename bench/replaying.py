"""Deliver from the first block on: blocks a second, and what it costs the commits beside it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

from bench.comparison import Subject, beside, check, compare
from bench.ledger_process import LedgerProcess, ledger_process
from bench.load_client import Running
from bench.made_blocks import VALUE
from bench.row import Row
from bench.site import EVENTS, Site
from bench.wire import exchange
from selvedge_common.protoutil.seek_request import NEWEST
from selvedge_protos.peer import events_pb2

GROUP = "replay"
WHOLE, FILTERED = "/protos.Deliver/Deliver", "/protos.Deliver/DeliverFiltered"
READERS = 3
"""That read beside commits."""
LONGER = 3
"""Times as long as a commit takes alone is read beside it."""
TRANSACTIONS = 100
"""Of a block that is committed meanwhile."""


@dataclass(frozen=True)
class Replay:
    """The blocks that are read.

    Attributes:
        ledger: has them.
        first, last: their numbers.
    """

    ledger: LedgerProcess
    first: int
    last: int

    def reading(self, site: Site, method: str, readers: int) -> Running:
        """As many clients that read them, each on a connection of its own."""
        return site.load_client(
            *("read", self.ledger.address, method),
            connections=readers,
            request=site.client.seek(self.first, self.last),
            count=self.messages,
        )

    @property
    def messages(self) -> int:
        """For each reader: the blocks, and a status."""
        return self.last - self.first + 2


async def measure(site: Site) -> list[Row]:
    """Let one, then three clients read all there is; then three while blocks are committed."""
    async with ledger_process(site) as ledger:
        count = site.effort.replayed
        # Each transaction gets a key of its own.
        await ledger.do("grow", count)
        await ledger.do("make", count, 1, VALUE)
        await ledger.do("commit")
        newest = events_pb2.DeliverResponse.FromString(await _newest(site, ledger, WHOLE))
        last = newest.block.header.number
        replay = Replay(ledger, last - count + 1, last)
        return [
            await _replay(site, replay, "1 reader", WHOLE, 1),
            await _replay(site, replay, f"{READERS} readers", WHOLE, READERS),
            await _replay(site, replay, "1 reader, filtered", FILTERED, 1),
            await _commit_meanwhile(site, replay),
        ]


async def _newest(site: Site, ledger: LedgerProcess, method: str) -> bytes:
    """The newest block as it is delivered."""
    channel = await site.client.channel(ledger.address)
    stream = channel.stream_stream(method)()
    answer = await exchange(stream, site.client.seek(NEWEST, NEWEST))
    stream.cancel()
    return answer


async def _replay(site: Site, replay: Replay, name: str, method: str, readers: int) -> Row:
    size, seconds = len(await _newest(site, replay.ledger, method)), site.effort.round_seconds
    async with AsyncExitStack() as stack:
        reader = await stack.enter_async_context(replay.reading(site, method, readers))
        subjects = {"ours": Subject(replay.ledger.pid, reader.rounds(seconds))}
        for kind, yardstick in site.yardsticks.items():
            await site.set_size(yardstick, size)
            client = await stack.enter_async_context(
                site.load_client(
                    *("read", yardstick.address, EVENTS),
                    connections=readers,
                    request=str(replay.messages).encode(),
                    count=replay.messages,
                )
            )
            subjects[kind] = Subject(yardstick.pid, client.rounds(seconds))
        tallies = await compare(subjects, site.effort.rounds)
    blocks = f"{site.effort.replayed:,} blocks of 1 transaction"
    return beside(GROUP, f"{blocks}, {name}", tallies, f"{size:,} bytes each")


async def _commit_meanwhile(site: Site, replay: Replay) -> Row:
    """In turns: nobody reads, and all read for longer than it takes."""
    effort, ledger = site.effort, replay.ledger
    count = max(1, effort.committed // TRANSACTIONS)
    make = ("make", count, TRANSACTIONS, VALUE)
    alone, beside_readers, read = list[float](), list[float](), list[float]()
    async with replay.reading(site, WHOLE, READERS) as readers:
        for _ in range(effort.rounds):
            await ledger.do(*make)
            without = await ledger.do("commit")
            await ledger.do(*make)
            reading = asyncio.create_task(readers.round(LONGER * without.seconds))
            timed = await ledger.do("commit")
            done = await reading
            check("replay", done)
            alone.append(without.count / without.seconds)
            beside_readers.append(timed.count / timed.seconds)
            read.append(done.messages / done.seconds)
    rate, before = median(beside_readers), median(alone)
    return Row(
        GROUP,
        f"commit, blocks of {TRANSACTIONS}, while {READERS} read",
        rate,
        "/s",
        note=f"{rate / before:.0%} of the {before:,.0f}/s without; they read {median(read):,.0f}/s",
    )
