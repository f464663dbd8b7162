"""The durable log of ordered blocks, in a SQLite file of its own."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Self, cast

from google.protobuf.message import DecodeError

from chaincode_support.ledger import store
from chaincode_support.ledger.store import Readers, channel_file, connect
from chaincode_support.ledger.trouble import REBUILD, can_pass, remedy
from chaincode_support.ledger.write_ahead_log import DEFAULT_MAX_BYTES, WriteAheadLog
from chaincode_support.ordering import metrics
from chaincode_support.ordering.errors import (
    LogUnreadable,
    LogUnusable,
    LogUnwritable,
    PositionTaken,
)
from chaincode_support.ordering.interface import Tip
from selvedge_common.protoutil import blocks
from selvedge_protos.common import common_pb2

SCHEMA_VERSION = 1
SCHEMA = "CREATE TABLE block (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;"

_INSERT = "INSERT INTO block (number, bytes) VALUES (?, ?) ON CONFLICT (number) DO NOTHING"

MEND = (
    f"{REBUILD} What cannot be read is taken from the ledger; what that has not got is in a backup "
    "only."
)


class SqliteLog:
    """A BlockLog in a file, whose primary key sees to it that each place is taken once.

    What others append to the file is noticed when this one appends.
    """

    def __init__(
        self, file: Path, channel: str, writer: sqlite3.Connection, max_wal_bytes: int
    ) -> None:
        self.file = file
        self.tip = _tip(writer, file)
        self._channel = channel
        self._writer = writer
        self._followers: list[Callable[[int, int], object]] = []
        self._wal = WriteAheadLog(
            file, channel, writer, max_wal_bytes, metrics.wal_bytes.labels(channel)
        )
        self._begun_anew = False
        self._readers = Readers(file)

    @classmethod
    def open(cls, folder: Path, channel: str, *, max_wal_bytes: int = DEFAULT_MAX_BYTES) -> Self:
        """Open or make the channel's log in `folder`.

        `max_wal_bytes` bounds the write-ahead log, but for what a reader still needs of it. Raises
        LogUnusable, or LedgerUnusable for what is no channel name.
        """
        file = channel_file(folder, channel)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            writer = connect(file)
            try:
                writer.execute("PRAGMA journal_mode = WAL")
                # Not a setting: what clients were told is ordered, and what the ledger holds, is
                # made again from this log alone.
                writer.execute("PRAGMA synchronous = FULL")
                writer.execute(f"PRAGMA wal_autocheckpoint = {store.CHECKPOINT_PAGES}")
                _ensure_schema(writer, file)
                return cls(file, channel, writer, max_wal_bytes)
            except BaseException:
                writer.close()
                raise
        except (OSError, sqlite3.Error, UnicodeError) as error:
            raise LogUnusable(
                f"The ordering log {file} of channel {channel} cannot be used: {error}. "
                + remedy(error, MEND)
            ) from error

    def follow(self, advanced: Callable[[int, int], object]) -> None:
        """See BlockLog.follow; `advanced` is called on the thread that appends."""
        self._followers.append(advanced)

    def append(self, block: common_pb2.Block) -> None:
        """See BlockLog.append."""
        number, marshalled = block.header.number, block.SerializeToString()
        try:
            # A block whose sync failed, before a crash, is read as if it were on the disk; yet the
            # system takes it for written, no later sync writes it, and a power cut would take it
            # with all that follows. Moved into the database it is written once more.
            self._begun_anew = self._begun_anew or self._wal.empty()
            # One statement is one transaction: it is durable when execute() returns.
            if not self._writer.execute(_INSERT, (number, marshalled)).rowcount:
                self._catch_up()
                raise PositionTaken(f"The ordering log {self.file} has another block {number}.")
        except sqlite3.Error as error:
            what = (
                f"Block {number} of channel {self._channel} could not be written to {self.file}: "
                f"{error}."
            )
            if can_pass(error):
                raise LogUnwritable(f"{what} Check the disk's room and health.") from error
            raise LogUnusable(f"{what} {MEND}") from error
        self._advance(Tip(number + 1, blocks.header_hash(block.header)), len(marshalled))
        self._wal.trim()

    def block(self, number: int) -> bytes:
        """See BlockLog.block."""
        try:
            with self._readers.connection() as connection:
                row = connection.execute(
                    "SELECT bytes FROM block WHERE number = ?", (number,)
                ).fetchone()
        except sqlite3.Error as error:
            what = f"Block {number} could not be read from the ordering log {self.file}: {error}."
            if can_pass(error):
                raise LogUnreadable(f"{what} Check the disk.") from error
            raise LogUnusable(f"{what} {MEND}") from error
        if row is None:
            if number < self.tip.height:
                raise self.damaged(number, "it is not there.")
            raise KeyError(number)
        return cast("bytes", row[0])

    def damaged(self, number: int, why: str) -> LogUnusable:
        """See BlockLog.damaged."""
        return LogUnusable(
            f"Block {number} in the ordering log {self.file} is damaged: {why} {MEND}"
        )

    def close(self) -> None:
        """Close the file."""
        self._readers.close()
        self._writer.close()

    def _catch_up(self) -> None:
        tip = _tip(self._writer, self.file)
        (size,) = self._writer.execute(
            "SELECT sum(length(bytes)) FROM block WHERE number >= ? AND number < ?",
            (self.tip.height, tip.height),
        ).fetchone()
        self._advance(tip, size)

    def _advance(self, tip: Tip, size: int) -> None:
        self.tip = tip
        for advanced in self._followers:
            advanced(tip.height, size)


def _ensure_schema(connection: sqlite3.Connection, file: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT"
        )
    elif version != SCHEMA_VERSION:
        raise LogUnusable(
            f"The ordering log {file} has schema {version}; this release reads schema "
            f"{SCHEMA_VERSION}: use the release that wrote it."
        )


def _tip(connection: sqlite3.Connection, file: Path) -> Tip:
    row = connection.execute(
        "SELECT number, bytes FROM block ORDER BY number DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return Tip(0, b"")
    number, stored = row
    try:
        header = common_pb2.Block.FromString(stored).header
    except DecodeError as error:
        raise LogUnusable(
            f"Block {number} in the ordering log {file} is damaged. {MEND}"
        ) from error
    return Tip(number + 1, blocks.header_hash(header))
