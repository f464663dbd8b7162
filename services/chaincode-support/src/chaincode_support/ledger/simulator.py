"""Simulation of one transaction on one snapshot of the state.

Follows release 2.5, core/ledger/kvledger/txmgmt/txmgr (queryExecutor, txSimulator).
"""

import sqlite3
from collections.abc import Iterator

from chaincode_support.ledger import state
from chaincode_support.ledger.errors import LedgerClosed
from chaincode_support.ledger.read_write_set import RangeRead, ReadWriteSet, Version
from chaincode_support.ledger.store import SnapshotPool


class RangeIterator(Iterator[tuple[str, bytes]]):
    """The rows of a range, read one by one as they are asked for.

    What it has given out, and whether it was read to its end, is what the read-write set will say.
    """

    def __init__(self, rows: sqlite3.Cursor, read: RangeRead) -> None:
        self._rows: sqlite3.Cursor | None = rows
        self._read = read

    def __next__(self) -> tuple[str, bytes]:
        if self._rows is None:
            raise LedgerClosed("The range has been closed: open it again.")
        row = self._rows.fetchone()
        if row is None:
            self._read.exhaust()
            raise StopIteration
        key, value, block, tx = row
        self._read.add(key, Version(block, tx))
        return key, value

    def close(self) -> None:
        """Stop reading; harmless when repeated."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.close()


class Simulator:
    """Reads of one snapshot, and a record of them and of the writes; sees none of its own writes.

    Synchronous, for one user at a time. Every call after close() raises LedgerClosed; reads and
    writes of more than `max_bytes` together raise SimulationTooLarge.
    """

    def __init__(self, pool: SnapshotPool, txid: str, max_bytes: int) -> None:
        self.txid = txid
        self._pool = pool
        self._connection: sqlite3.Connection | None = pool.take()
        self._recorded = ReadWriteSet(max_bytes)
        self._ranges: list[RangeIterator] = []
        self._results: bytes | None = None

    def get_state(self, namespace: str, key: str) -> bytes | None:
        """The key's value, or None when it does not exist."""
        row = state.get(self._open(), namespace, key)
        if row is None:
            self._recorded.read(namespace, key, None)
            return None
        value, block, tx = row
        self._recorded.read(namespace, key, Version(block, tx))
        return value

    def put_state(self, namespace: str, key: str, value: bytes) -> None:
        """Record a write; as in Fabric an empty value deletes the key."""
        self._open()
        self._recorded.write(namespace, key, value)

    def delete_state(self, namespace: str, key: str) -> None:
        """Record a delete, whether the key exists or not."""
        self.put_state(namespace, key, b"")

    def range(self, namespace: str, start: str, end: str) -> RangeIterator:
        """Rows from `start` (included) to `end` (excluded) in byte order; "" leaves a side open."""
        connection = self._open()
        read = self._recorded.range(namespace, start, end)
        iterator = RangeIterator(state.scan(connection, namespace, start, end), read)
        self._ranges.append(iterator)
        return iterator

    def results(self) -> bytes:
        """The marshalled rwset.TxReadWriteSet of all that was done. Ends the recording."""
        if self._results is None:
            self._open()
            self._results = self._recorded.serialize()
        return self._results

    def close(self) -> None:
        """Release the snapshot; harmless when repeated."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        for iterator in self._ranges:
            iterator.close()
        self._pool.give_back(connection)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LedgerClosed(f"The simulation of transaction {self.txid} has ended.")
        if self._results is not None:
            raise LedgerClosed(
                f"The results of transaction {self.txid} have been taken: it can do nothing more."
            )
        return self._connection
