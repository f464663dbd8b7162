"""Whether what a transaction read is still so when its turn to be committed comes.

Follows release 2.5, core/ledger/kvledger/txmgmt/validation (validator.go, rangequery_validator.go).
Fabric looks at the state with the block's earlier updates laid over it; here those updates are
already in the state table, inside the same SQLite transaction.
"""

import sqlite3
from collections.abc import Set as AbstractSet

from chaincode_support.ledger import state
from chaincode_support.ledger.read_write_set import RangeReads, Version
from selvedge_common.protoutil.errors import MalformedTransaction
from selvedge_common.quoting import quoted
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer import transaction_pb2

# A Merkle degree below 2 has no tree; no endorser makes one.
_SMALLEST_DEGREE = 2


def check_conflicts(
    connection: sqlite3.Connection,
    rwsets: list[tuple[str, kv_rwset_pb2.KVRWSet]],
    touched: AbstractSet[tuple[str, str]],
) -> None:
    """Return when all that was read is still so.

    `touched` holds every (namespace, key) that earlier transactions of the block changed, as
    state.apply says; reading one of those is a conflict even if its version looks the same.
    Raises MalformedTransaction, MVCC_READ_CONFLICT or PHANTOM_READ_CONFLICT: the first that
    applies.
    """
    for namespace, rwset in rwsets:
        for read in rwset.reads:
            if (namespace, read.key) in touched:
                raise _changed(namespace, read, "was changed earlier in the block")
            now = state.version(connection, namespace, read.key)
            if now != _version(read):
                raise _changed(namespace, read, f"is {_described(now)} now")
        for info in rwset.range_queries_info:
            if not _range_is_unchanged(connection, namespace, info):
                raise MalformedTransaction(
                    transaction_pb2.PHANTOM_READ_CONFLICT,
                    f"The keys from {quoted(info.start_key)} to {quoted(info.end_key)} of the "
                    f"chaincode {quoted(namespace)} are not those that were read: propose the "
                    "transaction again.",
                )


def _changed(namespace: str, read: kv_rwset_pb2.KVRead, how: str) -> MalformedTransaction:
    return MalformedTransaction(
        transaction_pb2.MVCC_READ_CONFLICT,
        f"The key {quoted(read.key)} of the chaincode {quoted(namespace)} was read as "
        f"{_described(_version(read))} and {how}: propose the transaction again.",
    )


def _described(version: Version | None) -> str:
    if version is None:
        return "missing"
    return f"of block {version.block}, transaction {version.tx}"


def _version(read: kv_rwset_pb2.KVRead) -> Version | None:
    if not read.HasField("version"):
        return None
    return Version(read.version.block_num, read.version.tx_num)


def _range_is_unchanged(
    connection: sqlite3.Connection, namespace: str, info: kv_rwset_pb2.RangeQueryInfo
) -> bool:
    # A range that was left early ends with the last key its reader got, that key included.
    rows = state.scan(
        connection,
        namespace,
        info.start_key,
        info.end_key,
        end_included=not info.itr_exhausted,
    )
    try:
        if info.WhichOneof("reads_info") == "reads_merkle_hashes":
            return _hashes_match(rows, info.reads_merkle_hashes)
        return _rows_match(rows, info.raw_reads)
    finally:
        rows.close()


def _rows_match(rows: sqlite3.Cursor, reads: kv_rwset_pb2.QueryReads) -> bool:
    for read in reads.kv_reads:
        row = rows.fetchone()
        if row is None or row[0] != read.key or Version(row[2], row[3]) != _version(read):
            return False
    return rows.fetchone() is None


def _hashes_match(rows: sqlite3.Cursor, expected: kv_rwset_pb2.QueryReadsMerkleSummary) -> bool:
    if expected.max_degree < _SMALLEST_DEGREE:
        return False
    found = RangeReads(expected.max_degree)
    for key, _, block, tx in rows:
        found.add(key, Version(block, tx))
    info = kv_rwset_pb2.RangeQueryInfo()
    found.write_to(info)
    return info.reads_merkle_hashes == expected
