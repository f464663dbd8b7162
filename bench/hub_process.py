"""An event hub in a process of its own, and the source that it reads from."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.house import House, free_address, reachable
from bench.process import Program, module, program

_PATIENCE = 300.0
"""Seconds for the making of the most blocks."""


@dataclass(frozen=True)
class HubProcess:
    """A running hub.

    Attributes:
        pid: its process.
        address: of its listener.
        secure: whether that is behind mTLS.
    """

    pid: int
    address: str
    secure: bool
    _source: Program

    async def source(self, *words: object) -> int:
        """Have the source do one of its commands, bench/event_source.

        Raises:
            BenchError: it gave up.
        """
        return int(await self._source.ask(*words, patience=_PATIENCE))


@asynccontextmanager
async def hub_process(house: House, *, secure: bool) -> AsyncIterator[HubProcess]:
    """One with the material of a house's hub, and its own memory of where it is."""
    address = free_address()
    with TemporaryDirectory(dir=house.home.parent) as folder:
        async with module("event_source", house.home) as source:
            environment = {
                "CORE_PEER_FILESYSTEMPATH": str(house.home / "event-hub"),
                "CORE_PEER_EVENTS_ADDRESS": address,
                "CORE_PEER_TLS_ENABLED": str(secure).lower(),
                "CORE_SOURCE_ADDRESSES": await source.line(),
                "CORE_SOURCE_TLS_ENABLED": "false",
                "CORE_SOURCE_CHECKPOINT": str(Path(folder) / "checkpoints"),
                "CORE_OPERATIONS_LISTENADDRESS": free_address(),
                "CORE_LOGGING_SPEC": "error",
            }
            async with program(
                *(sys.executable, "-m", "event_hub"),
                name="event-hub",
                environment=environment,
                terminate=True,
            ) as hub:
                await reachable(address)
                yield HubProcess(hub.pid, address, secure, source)
