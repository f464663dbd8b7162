"""What SQLite's errors mean for a channel: trouble that passes, or a damaged file."""

import errno
import sqlite3
from pathlib import Path

from chaincode_support.ledger.errors import (
    LedgerClosed,
    LedgerError,
    LedgerUnusable,
    ReadFailed,
)
from selvedge_common.logs import get_logger

_log = get_logger("ledger")

# Primary result codes of trouble that may pass, or be mended while the service runs: a lock, no
# room, no memory, no file handles, a failing or read-only disk. Others mean damage or a mistake.
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
_PRIMARY = 0xFF
# A mistake in the call, whatever the file is like.
_MISTAKES = (sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)

# A container has the command that `selvedge ledger` calls for a home.
REBUILD = (
    "Stop the service and run `selvedge ledger rebuild`, or `chaincode-support-ledger rebuild` in "
    "a container."
)


def can_pass(error: sqlite3.Error) -> bool:
    """Whether the same statement may succeed later, with the same file and nothing restarted."""
    # Errors of the module itself, such as the use of a closed connection, have no code.
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY in _PASSING


def remedy(error: Exception, otherwise: str) -> str:
    """What to do about a file that cannot be opened: a full disk has harmed nothing."""
    full = getattr(error, "sqlite_errorcode", 0) & _PRIMARY == sqlite3.SQLITE_FULL
    if full or getattr(error, "errno", None) == errno.ENOSPC:
        return "The disk is full: make room on it and start again; the file itself is sound."
    return otherwise


class Soundness:
    """Whether a channel's file is sound, as far as reading it has shown."""

    def __init__(self, file: Path, channel: str) -> None:
        self._file = file
        self._channel = channel
        self.damage: str | None = None
        """What is wrong with the file and what to do about it, for operators; None for nothing."""

    def check(self) -> None:
        """Raises LedgerUnusable, with a sentence for clients, once the file was found damaged."""
        if self.damage is not None:
            raise self._refusal()

    def failed(self, error: sqlite3.Error) -> LedgerError:
        """What to raise for a read that failed, with a sentence for clients.

        Damage is remembered, and told in the log once.
        """
        if isinstance(error, _MISTAKES):
            return LedgerClosed(f"The ledger of channel {self._channel} cannot be read: {error}.")
        if can_pass(error):
            _log.error(
                "ledger not read: check the disk, the memory and the open files",
                channel=self._channel,
                file=str(self._file),
                error=str(error),
            )
            return ReadFailed(
                f"The ledger of channel {self._channel} cannot be read now; try again."
            )
        return self.found(str(error))

    def found(self, damage: str) -> LedgerUnusable:
        """What to raise for damage in the file, with a sentence for clients.

        It is remembered, and told in the log once.
        """
        if self.damage is None:
            self.damage = (
                f"The ledger file {self._file} of channel {self._channel} is damaged: {damage}. "
                f"{REBUILD}"
            )
            _log.critical(
                "ledger damaged: the channel serves no proposals and commits nothing more",
                channel=self._channel,
                file=str(self._file),
                error=damage,
                remedy=REBUILD,
            )
        return self._refusal()

    def _refusal(self) -> LedgerUnusable:
        return LedgerUnusable(
            f"The ledger of channel {self._channel} is damaged: have the peer's log read, and the "
            "ledger rebuilt."
        )
