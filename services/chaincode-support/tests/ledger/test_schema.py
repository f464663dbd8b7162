"""Files of earlier releases are brought up to date where they lie."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from testchannel import CHAINCODE, CHANNEL, fill_disk, writes

from chaincode_support.ledger import Ledger, LedgerUnusable, store
from chaincode_support.ledger.store import SCHEMA_VERSION

# As the first release made it.
FIRST = {
    "channel": ["name"],
    "block": ["number", "hash", "bytes"],
    "tx": ["txid", "block", "position", "code"],
    "state": ["namespace", "key", "value", "metadata", "block", "tx"],
    "history": ["namespace", "key", "block", "tx"],
}
STATE_OF_FIRST = """
CREATE TABLE first (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    metadata BLOB,
    block INTEGER NOT NULL,
    tx INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;
"""


def schema_of(file: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(file)
    found = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    return found


@pytest.fixture
async def first_release(chain: Any, tmp_path: Path) -> Path:
    """The closed file of a chain of two blocks, with schema 1."""
    await chain.add(chain.network.transaction(writes(a=b"1"))[1])
    chain.ledger.close()
    file: Path = chain.ledger.file
    connection = sqlite3.connect(file)
    connection.executescript(
        f"DROP INDEX block_hash; {STATE_OF_FIRST}"
        "INSERT INTO first SELECT namespace, key, value, metadata, block, tx FROM state;"
        "DROP TABLE state; ALTER TABLE first RENAME TO state; PRAGMA user_version = 1; VACUUM;"
    )
    tables = {
        name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE sql IS NOT NULL")
    }
    connection.close()
    assert tables == FIRST
    return file


async def test_a_file_of_the_first_release_goes_on_as_if_it_were_new(
    first_release: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        ledger = Ledger.open(tmp_path, CHANNEL)
        assert ledger.height == 2
        assert ledger.block_by_hash(ledger.last_hash) == ledger.block(1)
        simulator = ledger.simulator("tx")
        assert simulator.get_state(CHAINCODE, "a") == b"1"
        simulator.close()
        ledger.close()
    Ledger.open(tmp_path, "another").close()
    assert schema_of(first_release) == schema_of(tmp_path / "another.sqlite")


async def test_a_disk_too_full_for_it_leaves_the_file_as_it_was(
    first_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = schema_of(first_release)
    connect = store.connect

    def connect_without_room(file: Path) -> sqlite3.Connection:
        connection = connect(file)
        fill_disk(connection)
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(store, "connect", connect_without_room)
        with pytest.raises(LedgerUnusable, match="The disk is full: make room"):
            Ledger.open(tmp_path, CHANNEL)
    assert schema_of(first_release) == before
    Ledger.open(tmp_path, CHANNEL).close()


def test_a_file_of_another_channel_is_left_as_it_was(first_release: Path, tmp_path: Path) -> None:
    moved = first_release.rename(tmp_path / "another.sqlite")
    before = schema_of(moved)
    with pytest.raises(LedgerUnusable, match=f"belongs to channel {CHANNEL}, not to another"):
        Ledger.open(tmp_path, "another")
    assert schema_of(moved) == before


def test_a_file_of_a_later_release_is_refused(tmp_path: Path) -> None:
    Ledger.open(tmp_path, CHANNEL).close()
    connection = sqlite3.connect(tmp_path / f"{CHANNEL}.sqlite")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(LedgerUnusable, match=r"has schema 4; .* up to 3: use the release that"):
        Ledger.open(tmp_path, CHANNEL)
