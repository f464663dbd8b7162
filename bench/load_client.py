"""The load client: a Go program, since one in Python would be what is measured."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.process import PATIENCE, ROOT, BenchError

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selvedge"


class NoGo(BenchError):
    """There is nothing to build the load client with."""


@dataclass(frozen=True)
class Round:
    """What came of one round.

    Attributes:
        seconds: how long it took.
        messages: calls answered, messages exchanged or events received, all as they should be.
        failed: what was not.
        error: the first of these.
    """

    seconds: float
    messages: int
    failed: int
    error: str


class LoadClient:
    """A running load client with its connections."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def round(self, amount: float) -> Round:
        """Do a round of so many seconds; if idle, open so many connections on top.

        Raises:
            BenchError: the client gave up.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{amount}\n".encode())
        return Round(**json.loads(await self.line(PATIENCE + amount)))

    async def line(self, patience: float = PATIENCE) -> bytes:
        """The next line that it prints.

        Raises:
            BenchError: it ended instead, or takes longer than these seconds.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(patience):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BenchError("the server left the load client waiting for a minute") from None
        if not line:
            raise BenchError("the load client gave up; its last words are above")
        return line


Running = AbstractAsyncContextManager[LoadClient]


async def build() -> Path:
    """The load client's program, built if it is not what its source says.

    Raises:
        NoGo: there is no Go here.
        BenchError: it cannot be built.
    """
    # Where .ci/tools puts one of its own.
    go = shutil.which("go") or shutil.which("go", path=_CACHE / "go" / "bin")
    if go is None:
        raise NoGo("the load client is built with Go, which is not on PATH: install 1.24 or newer")
    built = _CACHE / "bin" / "bench-load"
    process = await asyncio.create_subprocess_exec(
        go,
        *("build", "-trimpath", "-buildvcs=false", "-o", built, "."),
        cwd=ROOT / "bench" / "load",
        stdin=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise BenchError("the load client cannot be built; what go said is above")
    return built


@asynccontextmanager
async def load_client(
    mode: str,
    address: str,
    *,
    program: Path,
    tls: Path | None = None,
    connections: int = 1,
    streams: int = 1,
    size: int = 100,
    pause: float = 0.0,
) -> AsyncIterator[LoadClient]:
    """A load client that has opened its connections; bench/load/main.go says what its modes are.

    Args:
        mode: unary, pingpong, fanout or idle.
        address: the server's.
        program: what `build` gave.
        tls: the folder of its certificate; None for plaintext.
        connections: how many to open.
        streams: on each of them, or calls in flight.
        size: bytes of each message.
        pause: seconds that each caller or stream rests after an answer.

    Raises:
        BenchError: it does not get that far.
    """
    process = await asyncio.create_subprocess_exec(
        program,
        *("-mode", mode, "-address", address, "-connections", str(connections)),
        *("-streams", str(streams), "-size", str(size), "-pause", f"{pause}s"),
        *(("-tls", tls) if tls else ()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C reaches the benchmark alone.
        start_new_session=True,
    )
    client = LoadClient(process)
    try:
        await client.line()
        yield client
    finally:
        # It has nothing to tidy up, and may be in the middle of a round.
        if process.returncode is None:
            process.kill()
        await process.wait()
