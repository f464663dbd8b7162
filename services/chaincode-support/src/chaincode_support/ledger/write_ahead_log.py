"""A write-ahead log of SQLite's, the ledger's or the ordering log's, kept from growing without end.

SQLite begins the log anew only at a moment when nobody reads from it. Under steady load snapshots
overlap and that moment never comes, so it has to be made: a checkpoint that moves all of the log
into the database, after which new snapshots no longer need the log, and that waits a little for the
older ones to end.
"""

import sqlite3
import time
from pathlib import Path

from prometheus_client import Gauge

from chaincode_support.ledger.store import BUSY_TIMEOUT_MS
from selvedge_common.logs import get_logger

_log = get_logger("ledger")

DEFAULT_MAX_BYTES = 64 << 20

# The writer waits this long, all attempts together, for snapshots to end, and not again before the
# pause has passed, so that a snapshot that stays slows committing by no more than a tenth. One long
# attempt would not do: SQLite waits for places of old snapshots, which new ones may take over.
_ATTEMPTS = 10
_WAIT_MS = 10
_PAUSE = 1.0


class WriteAheadLog:
    """The log beside a channel's file. Belongs to the writer's thread."""

    def __init__(
        self,
        file: Path,
        channel: str,
        writer: sqlite3.Connection,
        max_bytes: int,
        size: Gauge,
    ) -> None:
        """Above `max_bytes` the log is emptied as soon as the snapshots that need it have ended.

        `size` is told how many bytes it has.
        """
        self._file = file.with_name(f"{file.name}-wal")
        self._channel = channel
        self._writer = writer
        self._max_bytes = max_bytes
        self._not_before = 0.0
        self._metric = size
        # When it does begin anew by itself, what it grew beyond the bound is given back.
        writer.execute(f"PRAGMA journal_size_limit = {max_bytes}")

    def trim(self) -> None:
        """Between two transactions: empty the log if it is too long. Raises nothing."""
        size = self._size()
        if size > self._max_bytes:
            try:
                self.empty()
            except sqlite3.Error as error:
                # The transactions in the log are durable there, and are tried to be moved again.
                _log.warning(
                    "write-ahead log not emptied: check the disk's room and health",
                    channel=self._channel,
                    file=str(self._file),
                    error=str(error),
                )
            size = self._size()
        self._metric.set(size)

    def empty(self) -> bool:
        """Between two transactions: move all of the log into the database.

        False when a snapshot needs it, or did in the last second. Raises sqlite3.Error.
        """
        if time.monotonic() < self._not_before:
            return False
        emptied = False
        try:
            self._writer.execute(f"PRAGMA busy_timeout = {_WAIT_MS}")
            try:
                emptied = any(self._checkpoint() for _ in range(_ATTEMPTS))
            finally:
                self._writer.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        finally:
            if not emptied:
                self._not_before = time.monotonic() + _PAUSE
        return emptied

    def _checkpoint(self) -> bool:
        (busy, *_) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def _size(self) -> int:
        try:
            return self._file.stat().st_size
        except OSError:
            return 0
