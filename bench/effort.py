"""How much is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How often each thing is done.

    Attributes:
        starts: start-ups on a cold home, and as many on an existing one.
        latencies: transactions submitted one at a time.
        proposals: endorsements of a round with one in flight; with more, three times as many.
        transactions: transactions ordered and committed at full speed.
        state_calls: state calls within one transaction; with large values a tenth.
        ranges: range queries within one transaction.
        puts: puts of one transaction, one by one and in batches.
        rounds: of each load on each server.
        round_seconds: how long each of them is, where it is not counted.
        idle_streams: streams opened to see what they take; with a connection each, a quarter.
        committed: transactions of a round that are given to the ledger, in 200 blocks at most.
        read: keys that simulations of a round read; of ranges a hundredth.
        keys: how many the growing ledger has, each time it is measured.
        replayed: blocks that are read from the beginning.
        idle_consumers: of the hub, opened to see what they take.
        delivering_seconds: of each pace of events from the hub.
        paces: transactions a second, and for how many seconds.
    """

    starts: int
    latencies: int
    proposals: int
    transactions: int
    state_calls: int
    ranges: int
    puts: int
    rounds: int
    round_seconds: float
    idle_streams: int
    committed: int
    read: int
    keys: Sequence[int]
    replayed: int
    idle_consumers: int
    delivering_seconds: float
    paces: Sequence[tuple[int, float]]


FULL = Effort(
    starts=3,
    latencies=100,
    proposals=500,
    transactions=2000,
    state_calls=3000,
    ranges=10,
    puts=10_000,
    rounds=3,
    round_seconds=0.4,
    idle_streams=2000,
    committed=1500,
    read=10_000,
    keys=(1000, 100_000, 1_000_000),
    replayed=10_000,
    idle_consumers=5000,
    delivering_seconds=5.0,
    paces=((1, 20), (100, 10), (1000, 5)),
)
QUICK = Effort(
    starts=1,
    latencies=10,
    proposals=100,
    transactions=100,
    state_calls=1000,
    ranges=2,
    puts=1000,
    rounds=1,
    round_seconds=0.1,
    idle_streams=400,
    committed=100,
    read=1000,
    keys=(1000, 10_000, 100_000),
    replayed=200,
    idle_consumers=400,
    delivering_seconds=0.5,
    paces=((1, 2), (100, 1), (1000, 0.5)),
)
