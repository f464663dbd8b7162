"""Disks that fail, for processes of their own: below SQLite, which does not know of it."""

import os
import random
import struct
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Self

SOURCE = Path(__file__).with_name("ledger") / "disk.c"
SECTOR = 512
_HEAD = struct.Struct("=6Q")
_TRUNCATED, _SYNCED, _FORGOTTEN = 2, 3, 4
# Of processes, which is gone with them.
_SHARED_MEMORY = "-shm"
# What the system keeps of a file in memory, and writes as a whole.
_PAGE = 4096


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

    def touches(self, page: int) -> bool:
        """Whether it changes anything in this page of the file."""
        if self.kind == _TRUNCATED:
            return self.offset < (page + 1) * _PAGE
        return page * _PAGE < self.offset + len(self.written) and self.offset < (page + 1) * _PAGE

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


@dataclass(frozen=True)
class _LostPage:
    """What was in a page before it was written and a sync failed: no later sync writes it."""

    path: str
    page: int
    offset: int
    before: bytes

    @classmethod
    def of(cls, change: _Change) -> Iterator[Self]:
        end = change.offset + len(change.written)
        for page in range(change.offset // _PAGE, -(-end // _PAGE)):
            start = max(change.offset, page * _PAGE)
            length = min(end, (page + 1) * _PAGE) - start
            before = change.before[start - change.offset :][:length]
            yield cls(change.path, page, start, before.ljust(length, b"\0"))

    def undo(self) -> None:
        with open(self.path, "r+b") as file:
            if self.offset < file.seek(0, os.SEEK_END):
                file.seek(self.offset)
                file.write(self.before)


@dataclass
class _Volatile:
    """What a power cut takes from one file."""

    unsynced: list[_Change] = field(default_factory=list)
    lost: list[_LostPage] = field(default_factory=list)

    def sync(self) -> None:
        self.lost = [
            lost
            for lost in self.lost
            if not any(change.touches(lost.page) for change in self.unsynced)
        ]
        self.unsynced.clear()

    def forget(self) -> None:
        for change in self.unsynced:
            self.lost += _LostPage.of(change)
        self.unsynced.clear()


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
        for path, volatile in self._volatile().items():
            for change in reversed(volatile.unsynced):
                change.undo()
            for lost in reversed(volatile.lost):
                lost.undo()
            for change in volatile.unsynced if chosen is not None else ():
                assert chosen is not None
                if chosen.random() < 0.5:
                    change.redo(chosen)
            Path(path.removesuffix("-wal") + _SHARED_MEMORY).unlink(missing_ok=True)
        self._journal.write_bytes(b"")

    def _volatile(self) -> dict[str, _Volatile]:
        files: defaultdict[str, _Volatile] = defaultdict(_Volatile)
        for change in _noted(self._journal):
            if change.kind == _SYNCED:
                files[change.path].sync()
            elif change.kind == _FORGOTTEN:
                files[change.path].forget()
            elif Path(change.path).exists() and not change.path.endswith(_SHARED_MEMORY):
                files[change.path].unsynced.append(change)
        return files


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
