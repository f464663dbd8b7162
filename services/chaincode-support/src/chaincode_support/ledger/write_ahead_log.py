"""The ledger's write-ahead log, kept from growing without end.

SQLite begins the log anew only at a moment when nobody reads from it. Under steady load snapshots
overlap and that moment never comes, so it has to be made: a checkpoint that moves all of the log
into the database, after which new snapshots no longer need the log, and that waits a little for the
older ones to end.
"""

import sqlite3
import time
from pathlib import Path

from chaincode_support.ledger import metrics
from chaincode_support.ledger.store import BUSY_TIMEOUT_MS
from selvedge_common.logs import get_logger

_log = get_logger("ledger")

# The writer waits this long, all attempts together, for snapshots to end, and not again before the
# pause has passed, so that a snapshot that stays slows committing by no more than a tenth. One long
# attempt would not do: SQLite waits for places of old snapshots, which new ones may take over.
_ATTEMPTS = 10
_WAIT_MS = 10
_PAUSE = 1.0


class WriteAheadLog:
    """The log beside a channel's file. Belongs to the writer's thread."""

    def __init__(
        self, file: Path, channel: str, writer: sqlite3.Connection, max_bytes: int
    ) -> None:
        """Above `max_bytes` the log is emptied as soon as the snapshots that need it have ended."""
        self._file = file.with_name(f"{file.name}-wal")
        self._channel = channel
        self._writer = writer
        self._max_bytes = max_bytes
        self._not_before = 0.0
        self._metric = metrics.wal_bytes.labels(channel)
        # When it does begin anew by itself, what it grew beyond the bound is given back.
        writer.execute(f"PRAGMA journal_size_limit = {max_bytes}")

    def trim(self) -> None:
        """Between two transactions: empty the log if it is too long. Raises nothing."""
        size = self._size()
        if size > self._max_bytes and time.monotonic() >= self._not_before:
            self._empty()
            size = self._size()
        self._metric.set(size)

    def _size(self) -> int:
        try:
            return self._file.stat().st_size
        except OSError:
            return 0

    def _empty(self) -> None:
        emptied = False
        try:
            self._writer.execute(f"PRAGMA busy_timeout = {_WAIT_MS}")
            try:
                emptied = any(self._checkpoint() for _ in range(_ATTEMPTS))
            finally:
                self._writer.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        except sqlite3.Error as error:
            # The transactions in the log are durable there, and are tried to be moved again.
            _log.warning(
                "write-ahead log not emptied: check the disk's room and health",
                channel=self._channel,
                file=str(self._file),
                error=str(error),
            )
        if not emptied:
            self._not_before = time.monotonic() + _PAUSE

    def _checkpoint(self) -> bool:
        (busy, *_) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
