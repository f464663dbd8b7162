"""Runs programs of others beside the server under test, on the same event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Ended:
    """How a program ended and what it printed."""

    code: int
    stdout: str
    stderr: str


@contextlib.asynccontextmanager
async def running(*words: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The program with its output piped; whatever is left of it at the end is killed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        # What it still printed is read, so that its pipes are closed before the loop is.
        await process.communicate()


async def run(*words: str | Path, seconds: float) -> Ended:
    """Run the program to its end, or fail after that many seconds."""
    async with running(*words) as process, asyncio.timeout(seconds):
        stdout, stderr = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, stdout.decode(), stderr.decode())
