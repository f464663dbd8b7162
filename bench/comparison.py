"""The same load on several servers, in turns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from bench.load_client import Round
from bench.process import BenchError, cpu_seconds
from bench.row import Row

_WARM_UP = 1 / 3
"""What is done beforehand and not counted, as a part of a round."""


@dataclass(frozen=True)
class Subject:
    """A server that is measured.

    Attributes:
        pid: its process.
        round: puts the load on it, for that part of a round.
    """

    pid: int
    round: Callable[[float], Awaitable[Round]]


@dataclass
class Tally:
    """What a server made of a load so far."""

    rates: list[float] = field(default_factory=list)
    count: int = 0
    cpu: float = 0.0

    def add(self, count: int, seconds: float, cpu: float) -> None:
        """A round: so much was done, in so many seconds by the clock and of processor time."""
        self.rates.append(count / seconds)
        self.count += count
        self.cpu += cpu

    @property
    def rate(self) -> float:
        """Of what is counted, a second."""
        return median(self.rates)

    @property
    def cpu_each(self) -> float:
        """Microseconds of the server's processor time for each."""
        return self.cpu / self.count * 1e6


async def compare(subjects: Mapping[str, Subject], rounds: int) -> dict[str, Tally]:
    """Put so many rounds on each, in turns: whatever else the machine does is shared by all.

    Raises:
        BenchError: something was not answered as it should be, or nothing was.
    """
    for name, subject in subjects.items():
        check(name, await subject.round(_WARM_UP))
    tallies = {name: Tally() for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            before = cpu_seconds(subject.pid)
            done = await subject.round(1)
            cpu = cpu_seconds(subject.pid) - before
            check(name, done)
            tallies[name].add(done.messages, done.seconds, cpu)
    return tallies


def beside(group: str, name: str, tallies: Mapping[str, Tally], note: str = "") -> Row:
    """The row of `ours`, beside `raw` and `echo`."""
    ours, raw, echo = (tallies[key] for key in ("ours", "raw", "echo"))
    return Row(
        group,
        name,
        ours.rate,
        "/s",
        raw=raw.rate,
        cpu=ours.cpu_each,
        raw_cpu=raw.cpu_each,
        note=note,
        echo=echo.rate,
        echo_cpu=echo.cpu_each,
    )


def check(name: str, done: Round) -> None:
    """See that all of a round was as it should be.

    Raises:
        BenchError: it was not, or nothing came.
    """
    if done.failed:
        raise BenchError(f"{name}: {done.failed} failed, the first with: {done.error}")
    if not done.messages:
        raise BenchError(f"{name}: not one message came")
