"""Processes that the benchmark starts, and what the system knows of any process."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder, where `python -m bench` finds this package."""
PATIENCE = 60.0
"""Seconds for anything that is waited for."""
_GRACE = 5.0
"""Seconds that a program may take to end."""


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
    # The clock of another process, as Linux numbers them: finer than the ticks in /proc.
    return time.clock_gettime(~pid << 3 | 2)


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


class Program:
    """A program that was started; it ends when its standard input does.

    Attributes:
        pid: its process id.
        name: for messages.
    """

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self.pid = process.pid
        self.name = name

    async def line(self, patience: float = PATIENCE) -> str:
        """The next line that it prints.

        Raises:
            BenchError: it ended instead, or takes longer than these seconds.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(patience):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BenchError(f"{self.name} said nothing for {patience:.0f} s") from None
        if not line:
            raise BenchError(f"{self.name} gave up; its last words are above")
        return line.decode().strip()

    async def ask(self, *words: object, patience: float = PATIENCE) -> str:
        """Tell it these words on a line, and read the line that it answers. Raises as `line`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{' '.join(map(str, words))}\n".encode())
        return await self.line(patience)


@asynccontextmanager
async def program(
    *words: str | Path,
    name: str = "",
    environment: Mapping[str, str] | None = None,
    terminate: bool = False,
) -> AsyncIterator[Program]:
    """Run a program, which ends with this process.

    Args:
        words: its command line.
        name: for messages, where it is not the file's.
        environment: variables beside those of this process.
        terminate: whether a signal ends it, as its standard input means nothing to it.
    """
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C reaches the benchmark alone.
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        yield Program(process, name or Path(words[0]).name)
    finally:
        process.stdin.close()
        if terminate and process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(_GRACE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def module(name: str, *words: str | Path) -> AbstractAsyncContextManager[Program]:
    """Run a module of this package."""
    return program(sys.executable, "-m", f"bench.{name}", *words, name=f"bench.{name}")


async def standard_input() -> AsyncIterator[str]:
    """What whoever started this program tells it, line by line; it ends when it is to end."""
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    async for line in lines:
        yield line.decode().strip()


async def standard_input_ends() -> None:
    """Return when whoever started this program wants it to end, or is gone."""
    async for _ in standard_input():
        pass
