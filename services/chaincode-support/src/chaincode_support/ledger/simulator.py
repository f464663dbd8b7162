"""Simulation of one transaction on one snapshot of the state.

Follows release 2.5, core/ledger/kvledger/txmgmt/txmgr (queryExecutor, txSimulator).
"""

import sqlite3
from collections.abc import Generator, Mapping

from chaincode_support.ledger import state
from chaincode_support.ledger.errors import LedgerClosed, PagesAreReadOnly
from chaincode_support.ledger.history import modifications
from chaincode_support.ledger.not_kept import WithoutPrivateData
from chaincode_support.ledger.range_iterator import RangeIterator
from chaincode_support.ledger.read_write_set import ReadWriteSet, Version
from chaincode_support.ledger.store import Snapshot, SnapshotPool
from selvedge_protos.ledger.queryresult.kv_query_result_pb2 import KeyModification


class Simulator(WithoutPrivateData):
    """Reads of one snapshot, and a record of them and of the writes; sees none of its own writes.

    Synchronous, for one user at a time. Every call after close() raises LedgerClosed; reads and
    writes of more than `max_bytes` together raise SimulationTooLarge, and reads of a damaged file
    LedgerUnusable.
    """

    def __init__(self, pool: SnapshotPool, txid: str, owner: str, max_bytes: int) -> None:
        self.txid = txid
        self._pool = pool
        self._snapshot: Snapshot | None = pool.take(owner)
        self._recorded = ReadWriteSet(max_bytes)
        self._ranges: list[RangeIterator] = []
        self._paged = False
        self._results: bytes | None = None

    def get_state(self, namespace: str, key: str) -> bytes | None:
        """The key's value, or None when it does not exist."""
        connection = self._open()
        try:
            row = state.get(connection, namespace, key)
        except sqlite3.Error as error:
            raise self._pool.soundness.failed(error) from error
        if row is None:
            self._recorded.read(namespace, key, None)
            return None
        value, block, tx = row
        self._recorded.read(namespace, key, Version(block, tx))
        return value

    def put_state(self, namespace: str, key: str, value: bytes) -> None:
        """Record a write; as in Fabric an empty value deletes the key.

        Raises PagesAreReadOnly after range_page().
        """
        self._open_to_write()
        self._recorded.write(namespace, key, value)

    def delete_state(self, namespace: str, key: str) -> None:
        """Record a delete, whether the key exists or not."""
        self.put_state(namespace, key, b"")

    def range(self, namespace: str, start: str, end: str) -> RangeIterator:
        """Rows from `start` (included) to `end` (excluded) in byte order; "" leaves a side open."""
        return self._range(namespace, start, end, 0)

    def range_page(
        self, namespace: str, start: str, end: str, page_size: int, bookmark: str
    ) -> RangeIterator:
        """At most `page_size` rows of a range, which begin at `bookmark` if it is not empty.

        The bookmark of the page before it takes the place of `start`, also in the read-write set;
        0 and less set no bound. As in Fabric a transaction that reads pages can only read: raises
        PagesAreReadOnly when it has written before.
        """
        self._open()
        if self._recorded.has_writes:
            raise PagesAreReadOnly(
                f"Transaction {self.txid} has written, so it cannot read pages any more: read the "
                "whole range, or read the page in a transaction that writes nothing."
            )
        self._paged = True
        return self._range(namespace, bookmark or start, end, page_size)

    def get_metadata(self, namespace: str, key: str) -> dict[str, bytes]:
        """The key's metadata by name, empty when it has none or does not exist.

        Recorded as a read of the key, which has one version for value and metadata.
        """
        connection = self._open()
        try:
            row = state.get_metadata(connection, namespace, key)
        except sqlite3.Error as error:
            raise self._pool.soundness.failed(error) from error
        if row is None:
            self._recorded.read(namespace, key, None)
            return {}
        entries, block, tx = row
        self._recorded.read(namespace, key, Version(block, tx))
        return entries

    def put_metadata(self, namespace: str, key: str, entries: Mapping[str, bytes]) -> None:
        """Record that `entries` replace all metadata of the key; none of them deletes it.

        It comes to nothing when the key does not exist at commit. Raises PagesAreReadOnly after
        range_page().
        """
        self._open_to_write()
        self._recorded.write_metadata(namespace, key, entries)

    def history(self, namespace: str, key: str) -> Generator[KeyModification, None, None]:
        """What valid transactions made of the key, the newest first; deletes are among it.

        Read one by one as they are asked for, at a cost that grows with the size of the
        transaction's block and not with the length of the history. As in Fabric nothing of it is
        recorded: a commit does not find out that it has changed.
        """
        self._open()
        return modifications(self._open, self._pool.soundness.failed, namespace, key)

    def results(self) -> bytes:
        """The marshalled rwset.TxReadWriteSet of all that was done. Ends the recording."""
        if self._results is None:
            self._open()
            self._results = self._recorded.serialize()
        return self._results

    def close(self) -> None:
        """Release the snapshot; harmless when repeated."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None:
            return
        for iterator in self._ranges:
            iterator.close()
        self._pool.give_back(snapshot)

    def _range(self, namespace: str, start: str, end: str, page_size: int) -> RangeIterator:
        connection = self._open()
        read = self._recorded.range(namespace, start, end)
        failed = self._pool.soundness.failed
        try:
            rows = state.scan(connection, namespace, start, end)
        except sqlite3.Error as error:
            raise failed(error) from error
        iterator = RangeIterator(rows, failed, read, page_size)
        self._ranges.append(iterator)
        return iterator

    def _open_to_write(self) -> None:
        self._open()
        if self._paged:
            raise PagesAreReadOnly(
                f"Transaction {self.txid} has read a page of a range, so it cannot write any more: "
                "read the whole range, or write in a transaction that reads no pages."
            )

    def _open(self) -> sqlite3.Connection:
        if self._snapshot is None:
            raise LedgerClosed(f"The simulation of transaction {self.txid} has ended.")
        if self._results is not None:
            raise LedgerClosed(
                f"The results of transaction {self.txid} have been taken: it can do nothing more."
            )
        return self._snapshot.connection
