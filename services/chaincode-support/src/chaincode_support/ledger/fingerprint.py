"""Fingerprints of what a ledger's blocks led to: equal on all peers that committed the same."""

import hashlib
import heapq
import itertools
import sqlite3
from collections.abc import Iterator
from typing import Any

# The columns of replay.TABLES, those of the key first, and how many these are.
_COLUMNS = {
    "state": ("namespace, key, value, metadata, block, tx", 2),
    "history": ("namespace, key, block, tx", 4),
    "tx": ("txid, block, position, code", 1),
}


def fingerprint(connection: sqlite3.Connection, table: str) -> str:
    """The SHA-256, in hexadecimal, over all rows of one of replay.TABLES in the order of its key.

    Of each value the length comes first, in eight bytes. Raises sqlite3.Error.
    """
    digest = hashlib.sha256()
    for row in _rows(connection, table):
        for value in row:
            encoded = _encoded(value)
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def differences(
    first: sqlite3.Connection, second: sqlite3.Connection, table: str
) -> Iterator[tuple[str | int, ...]]:
    """The keys, in their order, under which two ledgers do not hold the same in a table.

    Raises sqlite3.Error.
    """
    _, size = _COLUMNS[table]

    def key_of(row: tuple[Any, ...]) -> list[tuple[str, Any]]:
        # Python compares strings as SQLite does: by code points, which is the order of UTF-8. The
        # values of a damaged row may be of any type.
        return [(type(value).__name__, "" if value is None else value) for value in row[:size]]

    both = heapq.merge(_rows(first, table), _rows(second, table), key=key_of)
    for _, rows in itertools.groupby(both, key_of):
        row, *same = rows
        if same != [row]:
            yield row[:size]


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    columns, size = _COLUMNS[table]
    key = ", ".join(columns.split(", ")[:size])
    # Both are of the constants above.
    return connection.execute(f"SELECT {columns} FROM {table} ORDER BY {key}")  # noqa: S608


def _encoded(value: str | bytes | float | None) -> bytes:
    """No metadata and empty metadata are the same; a float is in damaged rows only."""
    if value is None or isinstance(value, bytes):
        return value or b""
    return str(value).encode()
