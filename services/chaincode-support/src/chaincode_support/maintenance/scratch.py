"""Files that are made beside those of a channel, and room for them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from chaincode_support.ledger.store import make_scratch
from chaincode_support.maintenance.errors import NoRoom, NotNow
from chaincode_support.volume import give_to_owner
from selvedge_common.files import sync_folder

# What a disk must have left when files have been written, for services write to it, too: this
# share of their size, and no more than so many bytes.
_SPARE_SHARE = 4
_MOST_SPARE_BYTES = 64 << 20


def check_room(folder: Path, size: int) -> None:
    """Raises NoRoom unless the disk of an existing folder has `size` bytes, and some to spare."""
    free = shutil.disk_usage(folder).free
    needed = size + min(_MOST_SPARE_BYTES, size // _SPARE_SHARE)
    if free < needed:
        raise NoRoom(
            f"The disk of {folder} has {free >> 20} MB left, and {-(-needed >> 20)} MB are needed: "
            "make room on it."
        )


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder in `folder` that is removed in the end, with all that is left in it."""
    with tempfile.TemporaryDirectory(prefix=".maintenance-", dir=folder) as made:
        yield Path(made)


@contextmanager
def scratch_ledger(file: Path, channel: str) -> Iterator[sqlite3.Connection]:
    """A new ledger's file, in one transaction. Raises NotNow."""
    with writing(file), closing(make_scratch(file, channel)) as connection:
        # Without any journal nothing could be undone.
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")


@contextmanager
def undone(connection: sqlite3.Connection) -> Iterator[None]:
    """What is written to a scratch ledger meanwhile is gone afterwards. Raises sqlite3.Error."""
    connection.execute("SAVEPOINT undone")
    try:
        yield
    finally:
        if connection.in_transaction:  # a full disk has ended it
            connection.execute("ROLLBACK TO undone")
            connection.execute("RELEASE undone")


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """What SQLite raises of a file that is being made becomes NotNow."""
    try:
        yield
    except sqlite3.Error as error:
        raise NotNow(
            f"{file} cannot be written: {error}. Check the room and the health of the disk."
        ) from error


def make_durable(file: Path) -> None:
    """Returns once what was written to the file is on the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(new: Path, file: Path) -> None:
    """Let `new`, on the same disk, take the place of a SQLite file that nobody has open."""
    _remove_logs(file)
    os.replace(new, file)
    give_to_owner(file)
    sync_folder(file.parent)


def keep_aside(file: Path) -> Path | None:
    """Let a SQLite file that nobody has open keep its content under another name, whatever takes
    its place; None where there is no file."""
    if not file.exists():
        return None
    # Links: until another file takes its place, the old one is where it was.
    aside = file.with_name(f"{file.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    for suffix in ("", "-wal", "-journal"):
        part = file.with_name(file.name + suffix)
        if part.exists():
            os.link(part, aside.with_name(aside.name + suffix))
    sync_folder(file.parent)
    return aside


def remove(file: Path) -> None:
    """Remove a SQLite file that nobody has open."""
    _remove_logs(file)
    file.unlink(missing_ok=True)
    sync_folder(file.parent)


def _remove_logs(file: Path) -> None:
    """What is left beside a file would be read as the log of the next one of that name."""
    for suffix in ("-wal", "-shm", "-journal"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
