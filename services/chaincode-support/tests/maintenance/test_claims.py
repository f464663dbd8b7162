"""One process works on a channel's files at a time, and a dead one does not count."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from testchannel import CHANNEL

from chaincode_support.ledger import LedgerInUse, LedgerUnusable
from chaincode_support.volume import ChannelFiles, Claim, channels_on, claimed

HOLDER = """
import sys, time
from pathlib import Path
from chaincode_support.volume import ChannelFiles, Claim
claim = Claim(ChannelFiles.on(Path(sys.argv[1]), sys.argv[2]), "another process")
print("held", flush=True)
sys.stdin.read()
"""


def test_whoever_is_killed_holds_nothing_any_more(tmp_path: Path) -> None:
    files = ChannelFiles.on(tmp_path, CHANNEL)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), CHANNEL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LedgerInUse, match=rf"in use by another process, which holds {files.lock}"):
        Claim(files, "a test")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    Claim(files, "a test").release()


def test_channels_are_held_one_by_one(tmp_path: Path) -> None:
    claims = [Claim(ChannelFiles.on(tmp_path, name), "a test") for name in ("first", "second")]
    with pytest.raises(LedgerInUse, match="Channel first is in use by a test"):
        Claim(ChannelFiles.on(tmp_path, "first"), "a test")
    for claim in claims:
        claim.release()
        claim.release()


def test_a_volume_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "ordering").touch()
    with pytest.raises(LedgerUnusable, match=r"cannot be written \(.*Make the volume writable"):
        Claim(ChannelFiles.on(tmp_path, CHANNEL), "a test")


def test_what_is_no_channel_is_not_listed(sound: Path, tmp_path: Path) -> None:
    assert channels_on(sound) == [CHANNEL]
    assert channels_on(tmp_path) == []
    (tmp_path / "ledger").mkdir()
    for name in ("b.sqlite", "B.sqlite", "c.sqlite-wal", "d.lock"):
        (tmp_path / "ledger" / name).touch()
    (tmp_path / "ledger" / "e.sqlite").mkdir()
    os.mkfifo(tmp_path / "ledger" / "f.sqlite")
    assert channels_on(tmp_path) == ["b"]
    assert os.listdir(tmp_path) == ["ledger"]


def test_a_link_to_a_file_is_a_channel_and_one_to_nothing_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "ordering").mkdir()
    (tmp_path / "elsewhere").touch()
    (tmp_path / "ordering" / "a.sqlite").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "ordering" / "b.sqlite").symlink_to(tmp_path / "nowhere")
    assert channels_on(tmp_path) == ["a", "b"]
    ChannelFiles.on(tmp_path, "a").check_links()
    with pytest.raises(LedgerUnusable, match=rf"b.sqlite is a link to {tmp_path}/nowhere, where"):
        ChannelFiles.on(tmp_path, "b").check_links()


def test_what_was_made_for_work_that_fails_is_gone(tmp_path: Path) -> None:
    files = ChannelFiles.on(tmp_path / "home" / "volume", CHANNEL)

    def fail() -> None:
        assert files.ledger.parent.is_dir()
        assert files.lock.exists()
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"), claimed(files, "a test"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with claimed(files, "a test"):
        pass
    with pytest.raises(OSError, match="no room"), claimed(files, "a test"):
        fail()
    assert files.lock.exists()


def test_the_lock_of_another_process_stays_when_it_is_in_the_way(tmp_path: Path) -> None:
    files = ChannelFiles.on(tmp_path / "volume", CHANNEL)
    with (
        claimed(files, "a running chaincode-support"),
        pytest.raises(LedgerInUse),
        claimed(files, "a test"),
    ):
        raise AssertionError("two have it")
    assert files.lock.read_text() == "a running chaincode-support\n"


def test_a_lock_that_was_removed_meanwhile_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another one would lock the new file of that name, and both would work."""
    files = ChannelFiles.on(tmp_path, CHANNEL)
    lock = fcntl.flock

    def lock_once_removed(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        files.lock.unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_once_removed)
    claim = Claim(files, "a test")
    with pytest.raises(LedgerInUse, match="in use by a test"):
        Claim(files, "another test")
    claim.release()
