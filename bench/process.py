"""Processes that the benchmark starts, and what the system knows of any process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder, where `python -m bench` finds this package."""
PATIENCE = 60.0
"""Seconds for anything that is waited for."""
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Measuring is not possible: one sentence that says why."""


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process, in MB (2**20 bytes).

    Attributes:
        rss: all pages, those shared with other processes too.
        pss: shared pages divided by the number of those who share them.
    """

    rss: float
    pss: float


def memory(pid: int) -> Memory:
    """The memory of a process now."""
    kilobytes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, amount, *_ = line.split()
        kilobytes[name.rstrip(":")] = int(amount)
    return Memory(kilobytes["Rss"] / 1024, kilobytes["Pss"] / 1024)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far, its threads included."""
    # The name of the program may hold blanks; what follows it does not.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def children(pid: int) -> dict[int, list[str]]:
    """The children of a process, and the words that each was started with."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError):  # it ended in between
            found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().split("\0")
    return found


async def settle(pids: Sequence[int]) -> None:
    """Return once these processes do next to nothing; what still works after a while is left to."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE / 4):
            while True:
                before = sum(map(cpu_seconds, pids))
                await asyncio.sleep(0.5)
                if sum(map(cpu_seconds, pids)) - before <= 0.02:
                    return


@asynccontextmanager
async def program(module: str, *words: str) -> AsyncIterator[tuple[int, str]]:
    """Run a module of this package; gives its process id and the first line that it prints.

    It ends when its standard input does, so it cannot outlive this process.

    Raises:
        BenchError: it ended before that line.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", f"bench.{module}", *words),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C reaches the benchmark alone.
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = await process.stdout.readline()
        if not line:
            raise BenchError(f"bench.{module} ended at once; its last words are above")
        yield process.pid, line.decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


async def standard_input_ends() -> None:
    """Return when whoever started this program wants it to end, or is gone."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def on_input() -> None:
        if not os.read(0, 64):
            loop.remove_reader(0)
            ended.set()

    loop.add_reader(0, on_input)
    await ended.wait()
