"""One service's process: started, watched, and stopped in good time."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from selvedge_cli import ENVIRONMENT
from selvedge_cli.errors import CommandError
from selvedge_cli.local.services import Service, inherited
from selvedge_common.healthcheck import Unhealthy, check
from selvedge_common.lifeline import ending_with_parent

POLL = 0.02
"""Seconds between two looks at a service that is starting."""
GRACE = 10.0
"""Seconds that a service gets to end after SIGTERM."""
TAIL = 12
"""Lines of its log that are shown of a service that died."""


class ServiceDied(CommandError):
    """A service ended that should not have."""

    def __init__(self, name: str, status: int, log: Path) -> None:
        how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
        lines = "".join(f"\n    {line}" for line in last_lines(log))
        super().__init__(f"{name} ended {how}; the end of {log}:{lines}")


class ServiceProcess:
    """A running service."""

    def __init__(self, service: Service, process: asyncio.subprocess.Process, log: Path) -> None:
        self.service = service
        self._process = process
        self._log = log

    @property
    def name(self) -> str:
        """Of the service."""
        return self.service.name

    async def ended(self) -> None:
        """Wait until it ends."""
        await self._process.wait()

    def death(self) -> ServiceDied:
        """How it ended; it has."""
        assert self._process.returncode is not None
        return ServiceDied(self.name, self._process.returncode, self._log)

    async def healthy(self) -> None:
        """Return once its operations endpoint says that it serves.

        Raises:
            ServiceDied: it ended before that.
        """
        url = f"https://{self.service.operations}/healthz"
        root = self.service.folder / "tls" / "ca.crt"
        while True:
            if self._process.returncode is not None:
                raise self.death()
            with suppress(Unhealthy):
                # Without its root there is nobody to ask yet.
                if root.exists():
                    return await asyncio.to_thread(check, url, root)
            await asyncio.sleep(POLL)

    async def stop(self) -> bool:
        """End it with SIGTERM, after a time with SIGKILL; False if it took that."""
        if self._process.returncode is not None:
            return True
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), GRACE)
        except TimeoutError:
            self.kill()
            await self._process.wait()
            return False
        return True

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self._process.kill()


async def start(service: Service, log: Path) -> ServiceProcess:
    """Start a service; it prints into its log, and the log of the run before is kept as `.1`."""
    with _fresh(log) as output:
        process = await asyncio.create_subprocess_exec(
            *ending_with_parent(),
            *service.command,
            env=inherited(ENVIRONMENT) | dict(service.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # A group of its own: Ctrl-C reaches `selvedge up` alone, which stops all in order.
            start_new_session=True,
        )
    return ServiceProcess(service, process, log)


def _fresh(log: Path) -> BinaryIO:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    return log.open("wb")


def last_lines(log: Path) -> list[str]:
    """The end of a log."""
    with log.open(errors="replace") as lines:
        return [line.rstrip() for line in deque(lines, TAIL)]
