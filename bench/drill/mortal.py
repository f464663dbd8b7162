"""Processes that are killed, and started again as they were."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.house import reachable
from bench.process import PATIENCE, ROOT, BenchError

_TAIL = 1000
"""Characters of a log that are shown."""


class Mortal:
    """A Python module in a process of its own, which serves at an address.

    Args:
        words: the module, and its arguments.
        address: where it listens.
        log: the file that takes what all its lives print.
        environment: variables beside those of this process.

    Attributes:
        address: where it listens.
    """

    def __init__(
        self, *words: str | Path, address: str, log: Path, environment: Mapping[str, str]
    ) -> None:
        self.address = address
        self._words = words
        self._log = log
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        """Whether it was started and not killed since."""
        return self._process is not None

    async def launch(self) -> None:
        """Start it, and do not wait for it."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *self._words),
                cwd=ROOT,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches the drill alone.
                start_new_session=True,
            )

    async def start(self) -> None:
        """Start it; returns once it listens.

        Raises:
            BenchError: it does not, or ends.
        """
        await self.launch()
        assert self._process is not None
        ended = asyncio.create_task(self._process.wait())
        listens = asyncio.create_task(reachable(self.address))
        await asyncio.wait((ended, listens), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            listens.cancel()
            raise BenchError(f"{self._words[0]} ended:\n{self._log.read_text()[-_TAIL:]}")
        ended.cancel()
        await listens

    async def kill(self) -> None:
        """End it in the middle of whatever it does."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """Ask it to end, and wait until it has; gives its status."""
        return await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        if process.returncode is None:
            process.send_signal(how)
        async with asyncio.timeout(PATIENCE):
            return await process.wait()
