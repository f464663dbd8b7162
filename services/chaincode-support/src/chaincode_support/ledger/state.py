"""The state table: what chaincodes see, each key with the height that wrote it last."""

import sqlite3
from collections.abc import Iterable
from typing import cast

from chaincode_support.ledger.read_write_set import Version
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2

_GET = "SELECT value, block, tx FROM state WHERE namespace = ? AND key = ?"
_HAS_METADATA = "SELECT 1 FROM state WHERE namespace = ? AND metadata IS NOT NULL LIMIT 1"
_GET_METADATA = "SELECT metadata, block, tx FROM state WHERE namespace = ? AND key = ?"
_VERSION = "SELECT block, tx FROM state WHERE namespace = ? AND key = ?"
_SCAN = "SELECT key, value, block, tx FROM state WHERE namespace = ? AND key >= ?"
_PUT = (
    "INSERT INTO state (namespace, key, value, block, tx) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (namespace, key) DO UPDATE "
    "SET value = excluded.value, block = excluded.block, tx = excluded.tx"
)
_DELETE = "DELETE FROM state WHERE namespace = ? AND key = ?"
_PUT_METADATA = "UPDATE state SET metadata = ?, block = ?, tx = ? WHERE namespace = ? AND key = ?"
# A read-write set that names a key twice wrote it once.
_HISTORY = "INSERT OR IGNORE INTO history (namespace, key, block, tx) VALUES (?, ?, ?, ?)"


def get(connection: sqlite3.Connection, namespace: str, key: str) -> tuple[bytes, int, int] | None:
    """(value, block, tx) of a key, or None."""
    row = connection.execute(_GET, (namespace, key)).fetchone()
    return cast("tuple[bytes, int, int] | None", row)


def has_metadata(connection: sqlite3.Connection, namespace: str) -> bool:
    """Whether any key of the namespace has metadata."""
    return connection.execute(_HAS_METADATA, (namespace,)).fetchone() is not None


def get_metadata(
    connection: sqlite3.Connection, namespace: str, key: str
) -> tuple[dict[str, bytes], int, int] | None:
    """(metadata, block, tx) of a key, or None when it does not exist."""
    row = connection.execute(_GET_METADATA, (namespace, key)).fetchone()
    if row is None:
        return None
    stored, block, tx = row
    # Stored as Fabric does, core/ledger/kvledger/txmgmt/statemetadata.
    entries = kv_rwset_pb2.KVMetadataWrite.FromString(stored or b"").entries
    return {entry.name: entry.value for entry in entries}, block, tx


class CommittedState:
    """The state that a connection shows, read as a Simulator is but without a record of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get_state(self, namespace: str, key: str) -> bytes | None:
        """The key's value, or None when it does not exist."""
        row = get(self._connection, namespace, key)
        return None if row is None else row[0]


def version(connection: sqlite3.Connection, namespace: str, key: str) -> Version | None:
    """The height that wrote the key last, or None when it does not exist."""
    row = connection.execute(_VERSION, (namespace, key)).fetchone()
    return None if row is None else Version(*row)


def scan(
    connection: sqlite3.Connection,
    namespace: str,
    start: str,
    end: str,
    *,
    end_included: bool = False,
) -> sqlite3.Cursor:
    """A cursor over (key, value, block, tx) in byte order; "" leaves a side open."""
    if not end:
        return connection.execute(_SCAN + " ORDER BY key", (namespace, start))
    comparison = "<=" if end_included else "<"
    return connection.execute(
        f"{_SCAN} AND key {comparison} ? ORDER BY key", (namespace, start, end)
    )


def apply(
    connection: sqlite3.Connection,
    height: Version,
    writes: Iterable[tuple[str, kv_rwset_pb2.KVRWSet]],
) -> set[tuple[str, str]]:
    """Write what a valid transaction wrote, and note each key in its history.

    Gives every (namespace, key) that it wrote or deleted, or whose metadata it changed.

    As in Fabric (core/ledger/kvledger/txmgmt/validation/tx_ops.go): an empty value deletes; a write
    keeps the key's metadata; metadata alone raises the key's version, and does nothing to a key
    that does not exist. A delete counts whether the key existed or not.
    """
    block, tx = height
    changed: set[tuple[str, str]] = set()
    for namespace, rwset in writes:
        for write in rwset.writes:
            if write.is_delete or not write.value:
                connection.execute(_DELETE, (namespace, write.key))
            else:
                connection.execute(_PUT, (namespace, write.key, write.value, block, tx))
            connection.execute(_HISTORY, (namespace, write.key, block, tx))
            changed.add((namespace, write.key))
        for metadata in rwset.metadata_writes:
            entries = kv_rwset_pb2.KVMetadataWrite(entries=metadata.entries)
            stored = entries.SerializeToString() if metadata.entries else None
            updated = connection.execute(
                _PUT_METADATA, (stored, block, tx, namespace, metadata.key)
            )
            if updated.rowcount:
                changed.add((namespace, metadata.key))
    return changed
