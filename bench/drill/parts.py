"""Sources and hubs, with the ways that lead to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.drill.mortal import Mortal
from bench.drill.network import Wire
from bench.drill.source import BlockFile
from bench.house import free_address

_SETTINGS = {
    # Little is kept, so that the past is asked for at the source, and some are too slow for it.
    "PEER_EVENTS_RECENTBYTES": "500KB",
    "PEER_EVENTS_OUTBOX_MAXEVENTS": "300",
    "SOURCE_HISTORYBYTES": "500KB",
    "SOURCE_RECONNECT_MAX": "300ms",
    "SOURCE_ANSWERTIMEOUT": "2s",
}


class Source:
    """A source whose blocks can be kept from it.

    Args:
        folder: for its blocks and its log.
        name: of both.

    Attributes:
        process: serves its blocks.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._blocks = BlockFile(folder / f"{name}.blocks")
        self._blocks.append([])
        self._held: list[bytes] | None = None
        address = free_address()
        self.process = Mortal(
            *("bench.drill.source", self._blocks.file, address),
            address=address,
            log=folder / f"{name}.log",
            environment={},
        )

    def append(self, block: bytes) -> None:
        """Have a new block."""
        if self._held is None:
            self._blocks.append([block])
        else:
            self._held.append(block)

    def hold(self) -> None:
        """Fall behind: have nothing new until it is released."""
        self._held = []

    def release(self) -> None:
        """Have everything."""
        self._blocks.append(self._held or [])
        self._held = None


class Hub:
    """An event hub.

    Args:
        folder: for its positions and its log.
        name: for sentences.
        material: the folder of its certificates.
        ways: to each of its sources.
        front: the way of its consumers.
        transport: of its listener.

    Attributes:
        process: the service.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        material: Path,
        address: str,
        ways: Sequence[Wire],
        front: Wire,
        transport: str,
    ) -> None:
        self.name = name
        self.ways = ways
        self.front = front
        self._log = folder / f"{name}.log"
        self._looked = 0
        environment = _SETTINGS | {
            "PEER_ID": name,
            "PEER_FILESYSTEMPATH": str(material),
            "PEER_EVENTS_ADDRESS": address,
            "TRANSPORT_KIND": transport,
            "SOURCE_ADDRESSES": ",".join(way.address for way in ways),
            "SOURCE_TLS_ENABLED": "false",
            "SOURCE_CHECKPOINT": str(folder / f"{name}.checkpoints"),
            "OPERATIONS_LISTENADDRESS": free_address(),
        }
        self.process = Mortal(
            "event_hub",
            address=address,
            log=self._log,
            environment={f"CORE_{key}": value for key, value in environment.items()},
        )

    def faults(self) -> list[str]:
        """What it logged, since this was asked last, of errors that nobody foresaw."""
        with self._log.open() as log:
            log.seek(self._looked)
            lines = log.readlines()
            self._looked = log.tell()
        return [line for line in lines if "Traceback" in line]
