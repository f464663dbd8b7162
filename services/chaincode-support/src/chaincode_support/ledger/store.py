"""One SQLite file a channel: its schema, its connections, and the pool of read snapshots."""

import os
import re
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chaincode_support.ledger import metrics
from chaincode_support.ledger.errors import LedgerBusy, LedgerClosed, LedgerUnusable
from chaincode_support.ledger.trouble import REBUILD, Soundness, remedy
from selvedge_common.logs import get_logger
from selvedge_common.protoutil.blocks import header_hash
from selvedge_protos.common import common_pb2

_log = get_logger("ledger")

# Keys are TEXT: SQLite compares their UTF-8 bytes, which is Fabric's order, and keeps U+0000.
# A state row's version is the height (block, tx) of the transaction that wrote it last.
_SCHEMA_1 = """
CREATE TABLE channel (name TEXT NOT NULL) STRICT;
CREATE TABLE block (
    number INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    bytes BLOB NOT NULL
) STRICT;
CREATE TABLE tx (
    txid TEXT PRIMARY KEY,
    block INTEGER NOT NULL,
    position INTEGER NOT NULL,
    code INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE state (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    metadata BLOB,
    block INTEGER NOT NULL,
    tx INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    block INTEGER NOT NULL,
    tx INTEGER NOT NULL,
    PRIMARY KEY (namespace, key, block, tx)
) STRICT, WITHOUT ROWID;
"""
_SCHEMA_2 = "CREATE UNIQUE INDEX block_hash ON block (hash);"

# A row whose value is large, as part of the tree that is searched by key, would be read whole by
# every search that passes it. Here the tree holds keys alone.
_SCHEMA_3 = """
ALTER TABLE state RENAME TO state_2;
CREATE TABLE state (
    id INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    block INTEGER NOT NULL,
    tx INTEGER NOT NULL,
    metadata BLOB,
    value BLOB NOT NULL,
    UNIQUE (namespace, key)
) STRICT;
INSERT INTO state (namespace, key, block, tx, metadata, value)
    SELECT namespace, key, block, tx, metadata, value FROM state_2 ORDER BY namespace, key;
DROP TABLE state_2;
CREATE INDEX state_metadata ON state (namespace) WHERE metadata IS NOT NULL;
"""

# Each takes a file from the version before it to its own: a new file takes all of them.
SCHEMAS = (_SCHEMA_1, _SCHEMA_2, _SCHEMA_3)
SCHEMA_VERSION = len(SCHEMAS)

SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
# How long a connection waits for a lock that another one holds. A reader needs none but for moments
# (when a log is recovered after a crash), and many read on the event loop, which must not wait.
BUSY_TIMEOUT_MS = 5_000
READER_BUSY_TIMEOUT_MS = 50
CHECKPOINT_PAGES = 1_000
WRITER_CACHE_KIB = 8_192
# Every snapshot has a page cache of its own, hence small; the system's file cache is shared.
READER_CACHE_KIB = 512

CHANNEL_NAME = re.compile(r"[a-z][a-z0-9.-]{0,248}")


def channel_file(folder: Path, channel: str) -> Path:
    """The channel's SQLite file in `folder`.

    Raises LedgerUnusable for a name that Fabric's configtx validator would refuse, which also
    keeps a name from pointing outside the folder.
    """
    if not CHANNEL_NAME.fullmatch(channel):
        raise LedgerUnusable(
            f"{channel!r} is no channel name: use at most 249 lower-case letters, digits, "
            "dots and dashes, beginning with a letter."
        )
    return folder / f"{channel}.sqlite"


def open_writer(file: Path, channel: str, synchronous: str) -> sqlite3.Connection:
    """Open the file for its one writer: a new one is made, an older release's brought up to date.

    `synchronous` is SQLite's pragma: FULL syncs every commit before it returns; NORMAL may lose
    the last commits (never the consistency) at a power loss. Raises LedgerUnusable.
    """
    if synchronous.upper() not in SYNCHRONOUS:
        raise LedgerUnusable(
            f"ledger.synchronous is {synchronous!r}: it must be one of {', '.join(SYNCHRONOUS)}."
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = connect(file)
    except (OSError, sqlite3.Error) as error:
        raise LedgerUnusable(f"The ledger file {file} cannot be opened: {error}.") from error
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous.upper()}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
        _ensure_schema(connection, file, channel)
    except (sqlite3.Error, UnicodeError) as error:
        connection.close()
        raise LedgerUnusable(
            f"The ledger file {file} of channel {channel} cannot be used: {error}. "
            + remedy(error, REBUILD)
        ) from error
    except LedgerUnusable:
        connection.close()
        raise
    return connection


def make_scratch(file: Path, channel: str) -> sqlite3.Connection:
    """Make a file that is worth nothing until it is whole: no journal is kept, nothing is synced.

    Raises sqlite3.Error.
    """
    connection = connect(file)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        _ensure_schema(connection, file, channel)
    except BaseException:
        connection.close()
        raise
    return connection


def insert_block(connection: sqlite3.Connection, block: common_pb2.Block) -> bytes:
    """Write a block as it is, verdicts included, and give it marshalled. Raises sqlite3.Error."""
    marshalled = block.SerializeToString()
    connection.execute(
        "INSERT INTO block (number, hash, bytes) VALUES (?, ?, ?)",
        (block.header.number, header_hash(block.header), marshalled),
    )
    return marshalled


def open_reader(file: Path) -> sqlite3.Connection:
    """Open a connection that can only read; the writer must have made the file."""
    connection = connect(file, READER_BUSY_TIMEOUT_MS)
    try:
        connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def connect(file: Path, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> sqlite3.Connection:
    """A connection in autocommit mode, for one user at a time on whatever thread."""
    _keep_private(file)
    return sqlite3.connect(
        file,
        timeout=busy_timeout_ms / 1000,
        isolation_level=None,
        check_same_thread=False,
    )


def _keep_private(file: Path) -> None:
    """Let nobody read it but its owner: not where folder and backups are open to others, either.

    SQLite gives what it lays beside a file the mode of that file. What is of earlier releases is
    changed, where this user may.
    """
    # Only a new file is opened: closing one drops the locks that SQLite holds on it.
    with suppress(OSError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    for each in (file, *(file.with_name(f"{file.name}{suffix}") for suffix in ("-wal", "-shm"))):
        with suppress(OSError):
            mode = each.stat().st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                each.chmod(0o600)


def _ensure_schema(connection: sqlite3.Connection, file: Path, channel: str) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise LedgerUnusable(
            f"The ledger file {file} has schema {version}; this release reads schemas up to "
            f"{SCHEMA_VERSION}: use the release that wrote it."
        )
    if version > 0:
        row = connection.execute("SELECT name FROM channel").fetchone()
        if row != (channel,):
            raise LedgerUnusable(
                f"The ledger file {file} belongs to channel {row[0] if row else 'nothing'}, not to "
                f"{channel}."
            )
    if version < SCHEMA_VERSION:
        changes = "".join(SCHEMAS[version:])
        connection.executescript(f"BEGIN IMMEDIATE;{changes}PRAGMA user_version={SCHEMA_VERSION};")
        if version == 0:
            connection.execute("INSERT INTO channel (name) VALUES (?)", (channel,))
        connection.execute("COMMIT")
        if version > 0:
            _log.info(
                "ledger file brought up to date: earlier releases cannot read it any more",
                channel=channel,
                file=str(file),
                schema=SCHEMA_VERSION,
            )


class Readers:
    """Connections that can only read, each with one user at a time, as many as there are users.

    For reads of one statement, on any thread.
    """

    def __init__(self, file: Path) -> None:
        """Raises sqlite3.Error when the file cannot be read."""
        self._file = file
        self._idle = [open_reader(file)]

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for what is done meanwhile. Raises sqlite3.Error."""
        # pop() and append() are one step each: no other thread comes in between.
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = open_reader(self._file)
        try:
            yield connection
        finally:
            self._idle.append(connection)

    def close(self) -> None:
        """Close them; whoever reads then gets sqlite3.ProgrammingError."""
        for connection in self._idle:
            connection.close()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A connection on which all reads are of one moment, until `hold` is closed."""

    connection: sqlite3.Connection
    hold: sqlite3.Cursor
    owner: str


class SnapshotPool:
    """A bounded pool of read connections, each holding one snapshot while it is out.

    A snapshot is SQLite's read transaction in WAL mode: it never waits for the writer, and the
    writer never waits for it. SQLite begins one with the first statement and ends it with the last
    one that is open, so a statement that stays open holds it: a third of what BEGIN, the read that
    fixes it, and ROLLBACK would cost.
    """

    def __init__(self, file: Path, channel: str, size: int, soundness: Soundness) -> None:
        self.soundness = soundness
        self._file = file
        self._channel = channel
        self._size = size
        self._idle: list[sqlite3.Connection] = []
        self._in_use = 0
        self._held: Counter[str] = Counter()
        self._closed = False
        self._in_use_metric = metrics.simulations_in_use.labels(channel)
        self._refused_metric = metrics.simulations_refused.labels(channel)

    def take(self, owner: str) -> Snapshot:
        """A snapshot of the newest commit for `owner`, to be given back.

        The last quarter is for owners that have few, so that some that hold on to theirs leave
        snapshots to all others.

        Raises LedgerBusy when `size` snapshots are out, LedgerClosed after close(), LedgerUnusable
        and ReadFailed.
        """
        if self._closed:
            raise LedgerClosed(f"The ledger of channel {self._channel} is closed.")
        held = self._held[owner]
        # However many owners share the rest among them, another one still gets its first.
        if self._in_use >= self._size + (0 if held else self._size // 4):
            self._refused_metric.inc()
            raise LedgerBusy(
                f"All {self._size} simulations that channel {self._channel} allows are running: "
                "try again, or raise ledger.maxSimulations."
            )
        if self._in_use >= self._size - self._size // 4 and held >= max(1, self._size // 16):
            self._refused_metric.inc()
            raise LedgerBusy(
                f"The chaincode {owner} runs {held} of the {self._size} simulations that channel "
                f"{self._channel} allows, and the few that are left are for others: try again, or "
                "raise ledger.maxSimulations."
            )
        try:
            connection = self._idle.pop() if self._idle else open_reader(self._file)
            try:
                hold = connection.execute("SELECT 1 FROM channel")
            except sqlite3.Error:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise self.soundness.failed(error) from error
        self._in_use += 1
        self._held[owner] += 1
        self._in_use_metric.inc()
        return Snapshot(connection, hold, owner)

    def give_back(self, snapshot: Snapshot) -> None:
        """End the snapshot. The caller has closed all its cursors."""
        self._in_use -= 1
        self._held[snapshot.owner] -= 1
        if not self._held[snapshot.owner]:
            del self._held[snapshot.owner]
        self._in_use_metric.dec()
        snapshot.hold.close()
        if self._closed:
            snapshot.connection.close()
            return
        self._idle.append(snapshot.connection)

    def close(self) -> None:
        """Close idle connections now, the others as they come back."""
        self._closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()
