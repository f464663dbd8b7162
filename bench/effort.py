"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How often each thing is done.

    Attributes:
        starts: start-ups on a cold home, and as many on an existing one.
        latencies: transactions submitted one at a time.
        proposals: endorsements with one in flight; with more there are three times as many.
        transactions: transactions ordered and committed at full speed.
        state_calls: state calls within one transaction.
        events: events that each consumer of the fan-out gets.
        rounds: of each load on each transport.
        round_seconds: how long each of them is.
        idle_streams: streams opened to see what they take; with a connection each, a quarter.
    """

    starts: int
    latencies: int
    proposals: int
    transactions: int
    state_calls: int
    events: int
    rounds: int
    round_seconds: float
    idle_streams: int


FULL = Effort(
    starts=3,
    latencies=100,
    proposals=500,
    transactions=2000,
    state_calls=3000,
    events=2000,
    rounds=3,
    round_seconds=0.4,
    idle_streams=2000,
)
QUICK = Effort(
    starts=1,
    latencies=10,
    proposals=40,
    transactions=100,
    state_calls=200,
    events=100,
    rounds=1,
    round_seconds=0.1,
    idle_streams=400,
)
