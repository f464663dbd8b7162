"""The services of one home, run by `selvedge up` and stopped by it."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.process import PATIENCE, BenchError, children
from selvedge_cli.addresses import Addresses, port_of

SELVEDGE = Path(sys.executable).with_name("selvedge")
_POLL = 0.05
PROCESSES = {
    "ca": "certificate_authority",
    "chaincode-support": "chaincode_support",
    "event-hub": "event_hub",
    "asset-transfer": "asset_transfer.py",
}
"""Each process, and by what its command line is known: a module, or the end of a path."""


class House:
    """A home, and the `selvedge up` on it while there is one.

    Args:
        folder: an existing folder for the home and for what `selvedge up` prints.
    """

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.addresses = Addresses()
        self._complaints = folder / "up.log"
        self._up: asyncio.subprocess.Process | None = None

    async def start(self) -> float:
        """Run `selvedge up --demo`; gives the seconds from there until it says that it is ready.

        Raises:
            BenchError: it does not get that far.
        """
        offset = _free_offset()
        self.addresses = Addresses().shifted(offset)
        with self._complaints.open("wb") as complaints:
            started = time.perf_counter()
            self._up = await asyncio.create_subprocess_exec(
                SELVEDGE,
                *("up", "--demo", "--json", "--home", self.home, "--port-offset", str(offset)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=complaints,
                # Ctrl-C reaches the benchmark alone, which stops the services in order.
                start_new_session=True,
            )
        assert self._up.stdout is not None
        async with asyncio.timeout(PATIENCE):
            async for line in self._up.stdout:
                said = json.loads(line)
                if said.get("type") == "ready":
                    return time.perf_counter() - started
                if "type" not in said:
                    raise BenchError(f"selvedge up did not get ready: {said['error']}")
        raise BenchError(f"selvedge up did not get ready:\n{self._complaints.read_text()}")

    async def stop(self) -> None:
        """Stop the services and wait until they have; the home stays."""
        if self._up is None:
            return
        if self._up.returncode is None:
            self._up.send_signal(signal.SIGINT)
        await self._up.wait()
        self._up = None

    def pids(self) -> dict[str, int]:
        """The process ids of the services and of `selvedge up`, by name."""
        assert self._up is not None
        running = children(self._up.pid)
        found = {
            name: pid
            for name, mark in PROCESSES.items()
            for pid, words in running.items()
            if any(word == mark or word.endswith(f"/{mark}") for word in words)
        }
        return found | {"selvedge up": self._up.pid}

    async def issue_chaincode(self, name: str) -> dict[str, str]:
        """The environment that a shim reads its name, certificate and key from, which the ca of
        this house issues.

        Raises:
            BenchError: the ca refuses.
        """
        environment: dict[str, str] = (await self.issue("--chaincode", name))["environment"]
        return environment

    async def issue(self, *whom: str) -> dict[str, Any]:
        """What `selvedge ca issue` says when it issues certificates.

        Args:
            whom: its options.

        Raises:
            BenchError: the ca refuses.
        """
        command = await asyncio.create_subprocess_exec(
            SELVEDGE,
            *("ca", "issue", *whom, "--json", "--home", str(self.home)),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await command.communicate()
        if command.returncode:
            raise BenchError("selvedge ca issue failed; its last words are above")
        said: dict[str, Any] = json.loads(output)
        return said


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[House]:
    """A house on a new home, up until the block ends."""
    house = House(folder)
    try:
        await house.start()
        yield house
    finally:
        await house.stop()


def free_address() -> str:
    """One on this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def reachable(address: str) -> None:
    """Return once somebody listens there.

    Raises:
        BenchError: nobody does for too long.
    """
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    _, writer = await asyncio.open_connection(host, int(port))
                except OSError:
                    await asyncio.sleep(_POLL)
                else:
                    writer.close()
                    return
    except TimeoutError:
        raise BenchError(f"nobody listens at {address}") from None


def _free_offset() -> int:
    """What `--port-offset` can be, so that no port of the services is taken."""
    for _ in range(100):
        # Below the ports that the system gives out to clients.
        offset = random.randrange(8_000, 20_000)  # noqa: S311 - nobody's secret
        if all(map(_free, asdict(Addresses().shifted(offset)).values())):
            return offset
    raise BenchError("no free ports were found between 15000 and 30000")


def _free(address: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port_of(address)))
        except OSError:
            return False
    return True
