"""One process works on a channel's files at a time, and a dead one does not count."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from testchannel import CHANNEL

from chaincode_support.ledger import LedgerInUse, LedgerUnusable
from chaincode_support.volume import ChannelFiles, Claim, channels_on

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
    assert channels_on(tmp_path) == ["b"]
    assert os.listdir(tmp_path) == ["ledger"]
