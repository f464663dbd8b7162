"""Starting on a full disk says so, and does not ask for a backup."""

import sqlite3
from pathlib import Path

import pytest
from testchannel import CHANNEL, fill_disk

from chaincode_support.ledger import Ledger, LedgerUnusable, store
from chaincode_support.ordering import log
from chaincode_support.ordering.errors import LogUnusable


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = store.connect

    def connect_without_room(file: Path) -> sqlite3.Connection:
        connection = connect(file)
        fill_disk(connection)
        return connection

    monkeypatch.setattr(store, "connect", connect_without_room)
    monkeypatch.setattr(log, "connect", connect_without_room)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_the_reason_given(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnusable, match="The disk is full: make room") as ledger:
        Ledger.open(tmp_path, CHANNEL)
    with pytest.raises(LogUnusable, match="The disk is full: make room") as ordering:
        log.SqliteLog.open(tmp_path / "ordering", CHANNEL)
    assert "backup" not in f"{ledger.value}{ordering.value}"
