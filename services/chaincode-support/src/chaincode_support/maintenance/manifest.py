"""What a backup holds, in a file of its own that is written last."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from chaincode_support.maintenance.errors import NoBackup
from chaincode_support.maintenance.progress import Progress
from selvedge_common.files import write_atomically

MANIFEST = "manifest.json"
FORMAT = 1
_CHUNK = 4 << 20


@dataclass(frozen=True)
class CopiedFile:
    """A file of a backup as it was when it was complete."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, file: Path, what: str, progress: Progress) -> Self:
        """Read a file. Raises OSError."""
        digest = hashlib.sha256()
        size = file.stat().st_size
        with file.open("rb") as content:
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
                progress(f"{what}, bytes read again", content.tell(), size)
        return cls(size, digest.hexdigest())


@dataclass(frozen=True)
class CopiedChannel:
    """A channel of a backup: how far its files go, and what they are like."""

    blocks: int
    ordered: int
    last_block_hash: str
    ledger: CopiedFile
    ordering: CopiedFile


@dataclass(frozen=True)
class Manifest:
    """A backup without it is not whole.

    Attributes:
        made: when the last file was complete, in ISO 8601.
        release: of chaincode-support.
        channels: by name.
    """

    made: str
    release: str
    channels: dict[str, CopiedChannel]

    def write(self, folder: Path) -> None:
        """Write it into a backup's folder. Raises OSError."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2)
        write_atomically(folder / MANIFEST, f"{text}\n".encode(), 0o600)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a backup's. Raises NoBackup."""
        if not folder.is_dir():
            raise NoBackup(
                f"There is no folder {folder}: name the one that the backup was made to."
            )
        file = folder / MANIFEST
        try:
            content = json.loads(file.read_bytes())
            if content["format"] != FORMAT:
                raise NoBackup(
                    f"{file} has format {content['format']}; this release reads format {FORMAT}: "
                    "restore with the release that made it."
                )
            channels = {name: _channel(each) for name, each in content["channels"].items()}
            return cls(content["made"], content["release"], channels)
        except FileNotFoundError:
            raise NoBackup(
                f"{folder} holds no backup, or one that was not finished: it has no {MANIFEST}."
            ) from None
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise NoBackup(f"{file} cannot be read ({error!r}): use another backup.") from error


def _channel(content: dict[str, Any]) -> CopiedChannel:
    files = {name: _file(content[name]) for name in ("ledger", "ordering")}
    return CopiedChannel(**{**content, **files})


def _file(content: dict[str, Any]) -> CopiedFile:
    file = CopiedFile(**content)
    if not isinstance(file.bytes, int) or not isinstance(file.sha256, str):
        raise TypeError(f"{content} are no size and checksum")
    return file
