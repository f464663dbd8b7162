"""Disks that fail, for processes of their own: below SQLite, which does not know of it."""

import random
import struct
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

SOURCE = Path(__file__).with_name("ledger") / "disk.c"
SECTOR = 512
_HEAD = struct.Struct("=6Q")
_TRUNCATED, _SYNCED = 2, 3


class Fault(Enum):
    """What the disk does."""

    NONE = b"-"
    WRITES_FAIL = b"w"
    FULL = b"f"
    SYNCS_FAIL = b"s"
    LIES = b"l"


@dataclass(frozen=True)
class _Change:
    kind: int
    path: str
    offset: int
    size: int
    before: bytes
    written: bytes

    def undo(self) -> None:
        with open(self.path, "r+b") as file:
            file.seek(self.offset)
            file.write(self.before)
            file.truncate(self.size)

    def redo(self, chosen: random.Random) -> None:
        """Do it again, or of a write some of its sectors."""
        with open(self.path, "r+b") as file:
            if self.kind == _TRUNCATED:
                file.truncate(self.offset)
                return
            for start in range(0, len(self.written), SECTOR):
                if chosen.random() < 0.9:
                    file.seek(self.offset + start)
                    file.write(self.written[start : start + SECTOR])


def build(folder: Path, compiler: str) -> Path:
    """Compile the library that stands between a program and the disk."""
    library = folder / "disk.so"
    words = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]
    subprocess.run([compiler, *words, library, SOURCE, "-ldl", "-lpthread"], check=True)
    return library


class Disk:
    """A folder whose disk fails as it is told, for programs that run with `environment`."""

    def __init__(self, library: Path, folder: Path, aside: Path, *, cuts: bool = False) -> None:
        """`aside`: a folder for what belongs to this; `cuts`: whether power cuts are acted out."""
        self._control = aside / "control"
        self._journal = aside / "journal"
        self.fail(Fault.NONE)
        self.environment = {
            "LD_PRELOAD": str(library),
            "DISK_FOLDER": str(folder.resolve()),
            "DISK_CONTROL": str(self._control),
            **({"DISK_JOURNAL": str(self._journal)} if cuts else {}),
        }

    def fail(self, fault: Fault) -> None:
        """Do this from now on."""
        if not self._control.exists():
            self._control.write_bytes(fault.value)
        with self._control.open("r+b") as control:
            control.write(fault.value)

    def cut_power(self, chosen: random.Random | None) -> None:
        """Undo what no sync has followed: all of it, or what `chosen` chooses. Nobody may run."""
        for path, changes in self._unsynced().items():
            for change in reversed(changes):
                change.undo()
            for change in changes if chosen is not None else ():
                assert chosen is not None
                if chosen.random() < 0.5:
                    change.redo(chosen)
            # Memory that processes share, which is gone.
            Path(path.removesuffix("-wal") + "-shm").unlink(missing_ok=True)
        self._journal.write_bytes(b"")

    def _unsynced(self) -> dict[str, list[_Change]]:
        unsynced: defaultdict[str, list[_Change]] = defaultdict(list)
        for change in _noted(self._journal):
            if change.kind == _SYNCED:
                unsynced.pop(change.path, None)
            elif Path(change.path).exists():
                unsynced[change.path].append(change)
        return unsynced


def _noted(journal: Path) -> Iterator[_Change]:
    """What the library has noted, in its order."""
    data = memoryview(journal.read_bytes())
    while data:
        kind, *lengths, offset, size = _HEAD.unpack_from(data)
        strings: list[bytes] = []
        start = _HEAD.size
        for length in lengths:
            strings.append(bytes(data[start : start + length]))
            start += length
        path, before, written = strings
        yield _Change(kind, path.decode(), offset, size, before, written)
        data = data[start:]
