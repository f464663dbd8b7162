"""The blocks in a channel's files, read as they lie there: nothing is changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from chaincode_support.ledger.store import BUSY_TIMEOUT_MS, SCHEMA_VERSION
from chaincode_support.ledger.trouble import can_pass
from chaincode_support.maintenance.errors import Damaged, MaintenanceError, NotNow
from chaincode_support.ordering import log
from chaincode_support.volume import ChannelFiles
from selvedge_common.quoting import printable

# SQLite looks for so many faults of a file, and of its words about them so much is told.
_MOST_FAULTS = 10
_MOST_CHARACTERS = 200
_PREFACE = "*** in database main ***\n"
_MEANINGS = {
    sqlite3.SQLITE_CORRUPT: "its pages are damaged",
    sqlite3.SQLITE_NOTADB: "it is no database, or its first page is damaged",
    sqlite3.SQLITE_ERROR: "it does not hold the tables that it should",
}


class StoredBlocks:
    """One file, on a connection that cannot write.

    Each block is read by itself: a service that writes the file at the same time can empty its
    write-ahead log. All methods raise Damaged, and NotNow for what may pass.
    """

    what: ClassVar[str]
    """What the file is, for people."""

    def __init__(self, file: Path, connection: sqlite3.Connection) -> None:
        self.file = file
        self.connection = connection

    @classmethod
    def open(cls, file: Path, newest_schema: int) -> Self:
        """Open a file of a schema up to `newest_schema`.

        Raises MaintenanceError for a later one.
        """
        if not file.exists():
            raise Damaged("it is missing")
        with reading(file):
            connection = sqlite3.connect(
                f"{file.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=BUSY_TIMEOUT_MS / 1000,
                isolation_level=None,
            )
            try:
                (schema,) = connection.execute("PRAGMA user_version").fetchone()
            except sqlite3.Error:
                connection.close()
                raise
        if schema > newest_schema:
            connection.close()
            raise MaintenanceError(
                f"{file} has schema {schema}; this release reads schemas up to {newest_schema}: "
                "use the release that wrote it."
            )
        if schema == 0:
            connection.close()
            raise Damaged("it holds no blocks")
        return cls(file, connection)

    def height(self) -> int:
        """The newest block's number and one; 0 without a block."""
        with reading(self.file):
            (newest,) = self.connection.execute("SELECT max(number) FROM block").fetchone()
        return 0 if newest is None else int(newest) + 1

    def block(self, number: int) -> bytes:
        """The marshalled block `number`."""
        return self._bytes("SELECT bytes FROM block WHERE number = ?", number)

    def check_pages(self) -> str | None:
        """What SQLite finds wrong with the file: its pages, its indexes, its types."""
        with reading(self.file):
            found = self.connection.execute(f"PRAGMA integrity_check({_MOST_FAULTS})").fetchall()
        if found == [("ok",)]:
            return None
        # Of a database's faults the first begins with its name.
        faults = "; ".join(fault.removeprefix(_PREFACE).replace("\n", "; ") for (fault,) in found)
        return f"its pages, indexes or types are damaged ({_quote(faults)})"

    @contextmanager
    def at_one_moment(self) -> Iterator[None]:
        """All that is read meanwhile is of one moment, whatever is committed."""
        with reading(self.file):
            self.connection.execute("BEGIN")
        try:
            yield
        finally:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def _bytes(self, query: str, number: int) -> bytes:
        with reading(self.file):
            row = self.connection.execute(query, (number,)).fetchone()
        if row is None:
            raise Damaged(f"block {number} is missing")
        (stored,) = row
        # A damaged record may be of any type, whatever the table declares.
        if not isinstance(stored, bytes):
            raise Damaged(f"block {number} is no bytes")
        return stored


class LedgerBlocks(StoredBlocks):
    """A ledger's file."""

    what = "ledger"

    @classmethod
    def of(cls, files: ChannelFiles) -> Self:
        """The ledger of a channel."""
        ledger = cls.open(files.ledger, SCHEMA_VERSION)
        try:
            with reading(files.ledger):
                names = ledger.connection.execute("SELECT name FROM channel").fetchall()
            if names != [(files.channel,)]:
                raise Damaged(f"it says that it is of channel {names}")
        except BaseException:
            ledger.close()
            raise
        return ledger

    def hash(self, number: int) -> bytes:
        """The hash of block `number`'s header, as the index of hashes has it."""
        return self._bytes("SELECT hash FROM block WHERE number = ?", number)

    def place(self, txid: str) -> tuple[int, int, int] | None:
        """(block, position, code) of a transaction, as the index of ids has it."""
        query = "SELECT block, position, code FROM tx WHERE txid = ?"
        with reading(self.file):
            found: tuple[int, int, int] | None = self.connection.execute(query, (txid,)).fetchone()
        return found

    def bytes_beside_blocks(self) -> int:
        """How much of the file is state, history and indexes, about."""
        query = (
            "SELECT page_count * page_size - (SELECT coalesce(sum(length(bytes)), 0) FROM block) "
            "FROM pragma_page_count, pragma_page_size"
        )
        with reading(self.file):
            (size,) = self.connection.execute(query).fetchone()
        return int(size)


class OrderedBlocks(StoredBlocks):
    """An ordering log's file."""

    what = "ordering log"

    @classmethod
    def of(cls, files: ChannelFiles) -> Self:
        """The ordering log of a channel."""
        return cls.open(files.ordering, log.SCHEMA_VERSION)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """What SQLite raises becomes Damaged, or NotNow for what may pass."""
    try:
        yield
    except sqlite3.Error as error:
        if can_pass(error):
            raise NotNow(
                f"{file} cannot be read now: {error}. Check who else holds it, its permissions and "
                "the disk."
            ) from error
        # Errors of the module itself have no code.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        meaning = _MEANINGS.get(code, "it cannot be read as it was written")
        raise Damaged(f"{meaning} ({_quote(str(error))})") from error
    except UnicodeDecodeError as error:
        # Of a text, or of SQLite's own words about a damaged schema.
        raise Damaged(f"it holds text that is not UTF-8 ({error})") from error


def _quote(words: str) -> str:
    return f"SQLite says: {printable(words, limit=_MOST_CHARACTERS)}"
