"""Endorsements a second: every check, a chaincode that does nothing, a signature."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bench.client import checked
from bench.comparison import Subject, Tally, beside, compare
from bench.load_client import LoadClient, Round
from bench.row import Row, verdict
from bench.site import ANSWER, Site

GROUP = "endorsing"
METHOD = "/protos.Endorser/ProcessProposal"
CPU_AIM = 350
"""Microseconds of the server's processor time that an endorsement may take."""
RATE_AIM = 2500
"""Endorsements a second with 32 in flight, on two processors."""


@dataclass(frozen=True)
class Scenario:
    """Who asks.

    Attributes:
        name: of its row.
        connections: clients, each with a connection of its own.
        in_flight: proposals of each at a time.
    """

    name: str
    connections: int
    in_flight: int

    @property
    def at_once(self) -> int:
        """Proposals at a time."""
        return self.connections * self.in_flight


SCENARIOS = (
    Scenario("1 client", 1, 1),
    Scenario("8 clients", 8, 1),
    Scenario("32 clients", 32, 1),
    Scenario("32 in flight of 1 client", 1, 32),
)


async def measure(site: Site) -> list[Row]:
    """Send proposals that were signed before, and to the yardsticks the same ones."""
    endorse = await site.client.endorser()
    answer = await endorse(site.client.propose("noop").signed)
    for yardstick in site.yardsticks.values():
        await site.set_size(yardstick, len(answer))
    return [await _measure(site, scenario) for scenario in SCENARIOS]


async def _measure(site: Site, scenario: Scenario) -> Row:
    count = site.effort.proposals * (1 if scenario.at_once == 1 else 3)
    signed: list[bytes] = []

    def endorsing(client: LoadClient) -> Callable[[float], Awaitable[Round]]:
        async def endorse(part: float) -> Round:
            signed[:] = (site.client.propose("noop").signed for _ in range(int(count * part)))
            done, answers = await client.replay(signed)
            if not done.failed:
                for answer in answers:
                    checked(answer)
            return done

        return endorse

    def answering(client: LoadClient) -> Callable[[float], Awaitable[Round]]:
        async def answer(part: float) -> Round:
            done, _ = await client.replay(signed[: int(count * part)])
            return done

        return answer

    async with AsyncExitStack() as stack:

        async def connect(address: str, method: str) -> LoadClient:
            return await stack.enter_async_context(
                site.load_client(
                    *("replay", address, method),
                    connections=scenario.connections,
                    streams=scenario.in_flight,
                )
            )

        endorser = await connect(site.house.addresses.peer, METHOD)
        subjects = {"ours": Subject(site.pid("chaincode-support"), endorsing(endorser))}
        for name, yardstick in site.yardsticks.items():
            client = await connect(yardstick.address, ANSWER)
            subjects[name] = Subject(yardstick.pid, answering(client))
        tallies = await compare(subjects, site.effort.rounds)
    return beside(GROUP, scenario.name, tallies, note=_note(scenario, tallies["ours"]))


def _note(scenario: Scenario, ours: Tally) -> str:
    notes = [verdict(f"≤ {CPU_AIM} µs", ours.cpu_each <= CPU_AIM)]
    if scenario.at_once == 32:
        notes.append(verdict(f"≥ {RATE_AIM:,}/s", ours.rate >= RATE_AIM))
    return ", ".join(notes)
