"""Of a channel's files nobody reads anything but their owner."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from testchannel import CHANNEL, Network, Service, writes
from volumes import SETTINGS, order

from chaincode_support.ledger import Ledger
from chaincode_support.ledger.store import connect

OPEN_TO_ALL, OF_THE_OWNER = 0o644, 0o600


def modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.rglob("*") if file.is_file()}


async def test_new_files_are_of_their_owner_alone(network: Network, tmp_path: Path) -> None:
    async with Service(network, tmp_path, SETTINGS) as service:
        await order(service, network.transaction(writes(a=b"1"))[1])
        for part in ("ledger", "ordering"):
            assert modes(tmp_path / part) == {
                f"{CHANNEL}.sqlite{suffix}": OF_THE_OWNER for suffix in ("", "-wal", "-shm")
            }


async def test_files_of_earlier_releases_are_closed_to_others_when_they_are_opened(
    network: Network, tmp_path: Path
) -> None:
    async with Service(network, tmp_path, SETTINGS):
        pass
    # Left by a process that was killed: a log, too.
    for part in ("ledger", "ordering"):
        file = tmp_path / part / f"{CHANNEL}.sqlite"
        with closing(sqlite3.connect(file, isolation_level=None)) as killed:
            killed.execute("CREATE TABLE mark (x)")
            left = {each: each.read_bytes() for each in file.parent.iterdir()}
        for each, content in left.items():
            each.write_bytes(content)
            each.chmod(OPEN_TO_ALL)
        assert len(left) == 3
    async with Service(network, tmp_path, SETTINGS):
        found = modes(tmp_path)
        assert set(found.values()) == {OF_THE_OWNER}
        assert len(found) == 3


def test_what_is_no_file_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "folder.sqlite"
    folder.mkdir(mode=0o755)
    with pytest.raises(sqlite3.OperationalError):
        connect(folder)
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_file_of_somebody_else_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    Ledger.open(tmp_path, CHANNEL).close()
    file = tmp_path / f"{CHANNEL}.sqlite"
    file.chmod(OPEN_TO_ALL)
    monkeypatch.setattr(os, "chmod", refuse)
    Ledger.open(tmp_path, CHANNEL).close()
    assert modes(tmp_path) == {file.name: OPEN_TO_ALL}
