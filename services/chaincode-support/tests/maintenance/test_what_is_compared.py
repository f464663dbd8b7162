"""Nothing is in a ledger's schema that no tool looks at."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from testchannel import CHANNEL

from chaincode_support.ledger.fingerprint import differences, fingerprint
from chaincode_support.ledger.replay import TABLES
from chaincode_support.ledger.store import make_scratch
from chaincode_support.maintenance.verification import HOLDS

BESIDE = {
    # Whose file it is: LedgerBlocks looks at it whenever it opens one.
    "channel": {"name"},
    # What all the rest follows from: each row is compared with the ordering log and its own hash.
    "block": {"number", "hash", "bytes"},
    # In which order keys were written for the first time says nothing.
    "state": {"id"},
}
"""Tables and columns that fingerprints leave out, and why."""
VALUES = {"TEXT": "x", "INTEGER": 1, "BLOB": b"x"}
OTHER_VALUES = {"TEXT": "y", "INTEGER": 2, "BLOB": b"y"}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(make_scratch(tmp_path / "ledger.sqlite", CHANNEL)) as connection:
        yield connection


def tables_of(connection: sqlite3.Connection) -> dict[str, dict[str, str]]:
    """The types of columns, by their names, of each table."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return {
        name: {
            column: kind for _, column, kind, *_ in connection.execute(f"PRAGMA table_info({name})")
        }
        for (name,) in names
    }


def test_each_table_is_replayed_or_left_out_on_purpose(ledger: sqlite3.Connection) -> None:
    found = tables_of(ledger)
    left_out = {table for table, columns in BESIDE.items() if columns == set(found[table])}
    assert set(found) - left_out == set(TABLES)
    assert set(HOLDS) == set(TABLES)


def test_each_column_of_a_replayed_table_is_in_its_fingerprint_or_left_out_on_purpose(
    ledger: sqlite3.Connection, tmp_path: Path
) -> None:
    compared = set()
    for table in TABLES:
        columns = tables_of(ledger)[table]
        names, places = ", ".join(columns), ", ".join("?" * len(columns))
        ledger.execute(
            f"INSERT INTO {table} ({names}) VALUES ({places})",
            [VALUES[columns[c]] for c in columns],
        )
        with closing(sqlite3.connect(tmp_path / f"{table}.sqlite")) as copy:
            ledger.backup(copy)
            before = fingerprint(ledger, table)
            for column, kind in columns.items():
                copy.execute(f"UPDATE {table} SET {column} = ?", (OTHER_VALUES[kind],))
                if fingerprint(copy, table) != before:
                    compared.add((table, column))
                    assert list(differences(ledger, copy, table))
                copy.execute(f"UPDATE {table} SET {column} = ?", (VALUES[kind],))
    assert compared == {
        (table, column)
        for table in TABLES
        for column in tables_of(ledger)[table]
        if column not in BESIDE.get(table, set())
    }
