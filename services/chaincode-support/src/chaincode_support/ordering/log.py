"""The durable log of ordered blocks, in a SQLite file of its own."""

import sqlite3
from pathlib import Path
from typing import Self, cast

from google.protobuf.message import DecodeError

from chaincode_support.ledger.store import channel_file, connect
from chaincode_support.ledger.trouble import REBUILD, can_pass, remedy
from chaincode_support.ordering.errors import LogUnreadable, LogUnusable
from selvedge_common.protoutil import blocks
from selvedge_protos.common import common_pb2

SCHEMA_VERSION = 1
SCHEMA = "CREATE TABLE block (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;"

MEND = (
    f"{REBUILD} What cannot be read is taken from the ledger; what that has not got is in a backup "
    "only."
)


class BlockLog:
    """Blocks by number. append() belongs to one thread, block() to another."""

    def __init__(self, file: Path, writer: sqlite3.Connection) -> None:
        self.file = file
        self._writer = writer
        self.height, self.last_hash = _tip(writer, file)
        self._reader = connect(file)

    @classmethod
    def open(cls, folder: Path, channel: str) -> Self:
        """Open or make the channel's log in `folder`. Raises LogUnusable, or LedgerUnusable for
        what is no channel name."""
        file = channel_file(folder, channel)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            writer = connect(file)
            try:
                writer.execute("PRAGMA journal_mode = WAL")
                # Not a setting: what clients were told is ordered, and what the ledger holds, is
                # made again from this log alone.
                writer.execute("PRAGMA synchronous = FULL")
                _ensure_schema(writer, file)
                return cls(file, writer)
            except BaseException:
                writer.close()
                raise
        except (OSError, sqlite3.Error, UnicodeError) as error:
            raise LogUnusable(
                f"The ordering log {file} of channel {channel} cannot be used: {error}. "
                + remedy(error, MEND)
            ) from error

    def append(self, block: common_pb2.Block) -> None:
        """Make the next block durable. Raises sqlite3.Error, having changed nothing."""
        if block.header.number != self.height:
            raise ValueError(f"The log waits for block {self.height}, not {block.header.number}.")
        # One statement is one transaction: it is durable when execute() returns.
        self._writer.execute(
            "INSERT INTO block (number, bytes) VALUES (?, ?)",
            (block.header.number, block.SerializeToString()),
        )
        self.height += 1
        self.last_hash = blocks.header_hash(block.header)

    def block(self, number: int) -> bytes:
        """The marshalled block `number`; see Ordering.block."""
        try:
            row = self._reader.execute(
                "SELECT bytes FROM block WHERE number = ?", (number,)
            ).fetchone()
        except sqlite3.Error as error:
            what = f"Block {number} could not be read from the ordering log {self.file}: {error}."
            if can_pass(error):
                raise LogUnreadable(f"{what} Check the disk.") from error
            raise LogUnusable(f"{what} {MEND}") from error
        if row is None:
            raise KeyError(number)
        return cast("bytes", row[0])

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._writer.close()


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


def _tip(connection: sqlite3.Connection, file: Path) -> tuple[int, bytes]:
    row = connection.execute(
        "SELECT number, bytes FROM block ORDER BY number DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return 0, b""
    number, stored = row
    try:
        header = common_pb2.Block.FromString(stored).header
    except DecodeError as error:
        raise LogUnusable(
            f"Block {number} in the ordering log {file} is damaged. {MEND}"
        ) from error
    return number + 1, blocks.header_hash(header)
