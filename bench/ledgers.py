"""The ledger alone: blocks that are given to it, and simulations that read."""

from __future__ import annotations

from dataclasses import dataclass

from bench.comparison import Tally
from bench.effort import Effort
from bench.ledger_process import LedgerProcess, ledger_process
from bench.ledger_server import ROWS
from bench.made_blocks import VALUE
from bench.row import Row, verdict
from bench.site import Site

GROUP = "ledger alone"
KEYS = 10_000
SIZES = (100, 1024)
"""Bytes of what a transaction writes."""
TRANSACTIONS = (1, 10, 100, 500)
"""Of a block."""
BLOCKS = 200
"""Of a round, at most."""
AIM = 2000
"""Transactions a second in blocks of 100."""


@dataclass(frozen=True)
class Commits:
    """What blocks of one size took.

    Attributes:
        ours: to validate and to commit them.
        verifying: nothing but their signatures, on as many threads.
        storing: nothing but their bytes, by SQLite.
    """

    ours: Tally
    verifying: Tally
    storing: Tally

    def row(self, group: str, name: str, note: str = "") -> Row:
        """Of transactions a second, with the signatures' share of the processor time."""
        share = f"signatures {self.verifying.cpu_each / self.ours.cpu_each:.0%}"
        return _row(group, name, self.ours, self.storing, "; ".join(filter(None, (share, note))))


@dataclass(frozen=True)
class Reads:
    """What reads of one kind took.

    Attributes:
        ours: in simulations.
        alone: by nothing but SQLite.
    """

    ours: Tally
    alone: Tally

    def row(self, group: str, name: str, note: str = "") -> Row:
        """Of reads a second."""
        return _row(group, name, self.ours, self.alone, note)


async def measure(site: Site) -> list[Row]:
    """Commit blocks of all sizes, then read."""
    async with ledger_process(site) as ledger:
        await ledger.do("grow", KEYS)
        rows = []
        for size in SIZES:
            for transactions in TRANSACTIONS:
                commits = await measure_commits(ledger, site.effort, KEYS, transactions, size)
                name = f"commit, blocks of {transactions}, writes of {size:,} bytes"
                aim = verdict(f"≥ {AIM:,}/s", commits.ours.rate >= AIM)
                rows.append(commits.row(GROUP, name, aim if transactions == 100 else ""))
        reads = await measure_reads(ledger, site.effort)
        ranges = await measure_ranges(ledger, site.effort)
        return [
            *rows,
            reads.row(GROUP, f"GetState of {VALUE} bytes"),
            ranges.row(GROUP, f"range of {ROWS:,} rows of {VALUE} bytes"),
        ]


async def measure_commits(
    ledger: LedgerProcess, effort: Effort, keys: int, transactions: int, size: int
) -> Commits:
    """Have it commit blocks of so many transactions, each of which writes so many bytes.

    `keys`: how many it has, each of which is written once in a round.
    """
    count = max(1, min(BLOCKS, min(effort.committed, keys) // transactions))
    make = ("make", count, transactions, size)
    _, *tallies = await ledger.in_turns(effort.rounds, make, ("commit",), ("verify",), ("store",))
    return Commits(*tallies)


async def measure_reads(ledger: LedgerProcess, effort: Effort) -> Reads:
    """Have keys read."""
    return await _measure(ledger, effort, ("read", effort.read), ("select", effort.read))


async def measure_ranges(ledger: LedgerProcess, effort: Effort) -> Reads:
    """Have ranges read."""
    count = effort.read // 100
    return await _measure(ledger, effort, ("range", count), ("scan", count))


async def _measure(
    ledger: LedgerProcess, effort: Effort, ours: tuple[str, int], alone: tuple[str, int]
) -> Reads:
    await ledger.in_turns(1, ours, alone)  # not counted
    return Reads(*await ledger.in_turns(effort.rounds, ours, alone))


def _row(group: str, name: str, ours: Tally, raw: Tally, note: str) -> Row:
    return Row(
        group,
        name,
        ours.rate,
        "/s",
        raw=raw.rate,
        cpu=ours.cpu_each,
        raw_cpu=raw.cpu_each,
        note=note,
    )
