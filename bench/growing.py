"""A ledger that grows: what reading and committing cost then, and the memory of its process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.ledger_process import ledger_process
from bench.ledger_server import ROWS
from bench.ledgers import measure_commits, measure_ranges, measure_reads
from bench.made_blocks import VALUE
from bench.process import memory
from bench.row import Row, verdict
from bench.site import Site

GROUP = "growing ledger"
TRANSACTIONS = 100
"""Of a block."""
READ_AIM = 1.5
"""Times the processor time that a read takes with the fewest keys."""
MEMORY_AIM = 1.1
"""Times the memory with the fewest keys."""


async def measure(site: Site) -> list[Row]:
    """Measure the same, each time there are more keys."""
    effort = site.effort
    reads, ranges, commits, used = list[Row](), list[Row](), list[Row](), list[Row]()
    async with ledger_process(site) as ledger:
        for keys in effort.keys:
            await ledger.do("grow", keys)
            at = f"{keys:,} keys"
            read = await measure_reads(ledger, effort)
            reads.append(read.row(GROUP, f"GetState of {VALUE} bytes, {at}"))
            scan = await measure_ranges(ledger, effort)
            ranges.append(scan.row(GROUP, f"range of {ROWS:,} rows, {at}"))
            commit = await measure_commits(ledger, effort, keys, TRANSACTIONS, VALUE)
            commits.append(commit.row(GROUP, f"commit, blocks of {TRANSACTIONS}, {at}"))
            used.append(Row(GROUP, f"memory, PSS, {at}", memory(ledger.pid).pss, "MB"))
    return [
        *_compared(reads, READ_AIM),
        *_compared(ranges, READ_AIM),
        *_compared(commits),
        *_compared(used, MEMORY_AIM),
    ]


def _compared(rows: Sequence[Row], aim: float | None = None) -> Iterator[Row]:
    """The rows, with how many times as much as the first each takes: processor time, or memory."""
    first, *larger = rows
    yield first
    for row in larger:
        times = _cost(row) / _cost(first)
        notes = [row.note] if row.note else []
        notes.append(f"{times:.2f} times the first")
        if aim is not None:
            notes.append(verdict(f"≤ {aim}", times <= aim))
        yield replace(row, note="; ".join(notes))


def _cost(row: Row) -> float:
    cost = row.value if row.cpu is None else row.cpu
    assert cost is not None
    return cost
