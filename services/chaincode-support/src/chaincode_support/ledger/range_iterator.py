"""The rows of a range on their way to a reader, and the record of what the reader got.

Follows release 2.5: core/ledger/kvledger/txmgmt/txmgr/query_executor.go (resultsItr) and, for
pages, statedb/stateleveldb (kvScanner) under core/chaincode/query_response_generator.go.
"""

import sqlite3
from collections.abc import Callable, Iterator
from typing import TypeAlias

from chaincode_support.ledger.errors import LedgerClosed, LedgerError
from chaincode_support.ledger.read_write_set import RangeRead, Version

_Row: TypeAlias = tuple[str, bytes, int, int]


class RangeIterator(Iterator[tuple[str, bytes]]):
    """The rows of a range, read one by one as they are asked for.

    What it has given out, and whether it was read to its end, is what the read-write set will say.
    A page ends after `page_size` rows, or with the range; 0 and less set no bound. Only a page
    that the range's end cut short has been read to its end: a peer does not look further either.
    """

    def __init__(
        self,
        rows: sqlite3.Cursor,
        failed: Callable[[sqlite3.Error], LedgerError],
        read: RangeRead,
        page_size: int = 0,
    ) -> None:
        """`failed` makes what is raised when a row cannot be read."""
        self._rows: sqlite3.Cursor | None = rows
        self._failed = failed
        self._read = read
        # Counted down, and reached only from above.
        self._left = page_size if page_size > 0 else -1
        self._bookmark: str | None = None

    def __next__(self) -> tuple[str, bytes]:
        if not self._left:
            raise StopIteration
        row = self._fetch()
        if row is None:
            self._read.exhaust()
            raise StopIteration
        self._left -= 1
        key, value, block, tx = row
        self._read.add(key, Version(block, tx))
        return key, value

    @property
    def bookmark(self) -> str:
        """The key at which the next page begins; "" when there is none.

        As with Fabric's GetBookmarkAndClose, asking for it ends this page, and the key is not
        recorded as read. Raises LedgerClosed when first asked after close().
        """
        if self._bookmark is None:
            row = self._fetch()
            self._left = 0
            self._bookmark = "" if row is None else row[0]
        return self._bookmark

    def _fetch(self) -> _Row | None:
        if self._rows is None:
            raise LedgerClosed("The range has been closed: open it again.")
        try:
            row: _Row | None = self._rows.fetchone()
            return row
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Stop reading; harmless when repeated."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.close()
