"""A hub in a process of its own, so that what it takes in memory is its own."""

import asyncio
import json
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from eventhouse import House

PATIENCE = 40.0


class HubProcess:
    """A hub that serves.

    Args:
        pid: of its process.
        address: where clients find it.
        operations: where its metrics are.
    """

    def __init__(self, pid: int, address: str, operations: str) -> None:
        self.address = address
        self._pid = pid
        self._operations = operations

    @property
    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self._pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    async def metric(self, name: str) -> float:
        """The sum of the samples whose names and labels begin so."""
        text = await asyncio.to_thread(_get, f"http://{self._operations}/metrics")
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def until_metric(self, name: str, least: float) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.metric(name) < least:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def hub_process(house: House, **settings: str) -> AsyncIterator[HubProcess]:
    """Run a hub; settings are CORE_ variables without the prefix."""
    environ = {
        "PEER_EVENTS_ADDRESS": "127.0.0.1:0",
        "PEER_FILESYSTEMPATH": str(house.folder),
        "SOURCE_ADDRESSES": house.peer.address,
        "OPERATIONS_LISTENADDRESS": "127.0.0.1:0",
        "OPERATIONS_TLS_ENABLED": "false",
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "event_hub",
        stderr=asyncio.subprocess.PIPE,
        env={f"CORE_{name}": value for name, value in environ.items()},
    )
    assert process.stderr is not None
    log = process.stderr
    reading = None
    try:
        async with asyncio.timeout(PATIENCE):
            serving: dict[str, str] = {}
            while serving.get("event") != "serving":
                serving = json.loads(await log.readline())
        reading = asyncio.create_task(log.read())
        yield HubProcess(process.pid, serving["events"], serving["operations"])
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        if reading is not None:
            await reading


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text
