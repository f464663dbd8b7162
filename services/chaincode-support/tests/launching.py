"""A peer that launches chaincode from a folder of packages, for tests that put some there."""

import hashlib
import io
import json
import tarfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rawshim import PATIENCE, Peer

from chaincode_support.launchers.archive import Bounds
from chaincode_support.launchers.launchers import Launchers
from chaincode_support.launchers.output import OutputBounds
from chaincode_support.launchers.packages import PackageBounds
from chaincode_support.launchers.process import ProcessSettings
from chaincode_support.launchers.supervisor import Pauses
from selvedge_common.comm import ServerConfig

CCAAS = {"type": "ccaas", "label": "mycc_1.0"}
CONNECTION = {"address": "cc:9999"}
BOUNDS = PackageBounds(Bounds(size=64 * 1024, files=20), packages=5)
PAUSES = Pauses(first=0.01, longest=0.1)
# What a started chaincode is told; a peer fills in its address.
PROCESSES = ProcessSettings(
    address="",
    msp_id="Org1MSP",
    root=None,
    certificate_required=False,
    host_override="",
    log_level="info",
    shim_log_level="warning",
    log_format="",
    grace=PATIENCE,
    output=OutputBounds(line=1024, lines=100),
    ca_address=None,
    enrol_patience=PATIENCE,
)


@dataclass
class Launching:
    """A peer with its launchers, and the folder that they look at."""

    peer: Peer
    launchers: Launchers
    folder: Path

    async def drop(
        self,
        entry: str,
        metadata: Mapping[str, Any],
        connection: Mapping[str, Any] | None = None,
        **programs: str,
    ) -> Path:
        """Put a package into the folder, and have it seen; programs are files by their stem."""
        place = drop(self.folder, entry, metadata, connection)
        for stem, program in programs.items():
            (place / f"{stem}.py").write_text(program)
        await self.launchers.look()
        return place

    def state(self, name: str) -> str:
        """What the launcher says of a chaincode."""
        (described,) = (each for each in self.launchers.describe(()) if each.name == name)
        return described.launcher_state


def drop(
    folder: Path,
    entry: str,
    metadata: Mapping[str, Any],
    connection: Mapping[str, Any] | None = None,
) -> Path:
    """Write the folder of a package."""
    place = folder / entry
    place.mkdir(parents=True, exist_ok=True)
    (place / "metadata.json").write_text(json.dumps(metadata))
    if connection is not None:
        (place / "connection.json").write_text(json.dumps(connection))
    return place


def _tar(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def package(label: str, **metadata: Any) -> bytes:
    """A package in Fabric's form."""
    code = _tar({"connection.json": json.dumps(CONNECTION).encode()})
    described = {"type": "ccaas", "label": label, **metadata}
    return _tar({"metadata.json": json.dumps(described).encode(), "code.tar.gz": code})


def id_of(label: str, data: bytes) -> str:
    return f"{label}:{hashlib.sha256(data).hexdigest()}"


StartLaunching = Callable[..., Awaitable[Launching]]
PLAINTEXT = ServerConfig()
