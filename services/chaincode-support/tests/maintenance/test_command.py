"""The command as operators and scripts see it: what it prints, where, and its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from testchannel import CHANNEL
from volumes import BLOCKS, changing, damage_block

from chaincode_support.volume import ChannelFiles, Claim


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chaincode_support.maintenance", *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_a_sound_volume(sound: Path) -> None:
    done = run("verify", "--volume", sound)
    assert done.returncode == 0
    assert done.stdout.startswith(
        f"channel {CHANNEL}: sound\n  blocks           {BLOCKS}, {BLOCKS}"
    )
    assert f"{CHANNEL}: blocks of the ledger: {BLOCKS} of {BLOCKS}" in done.stderr.splitlines()


def test_a_damaged_one_says_where_and_what_to_do(files: ChannelFiles, tmp_path: Path) -> None:
    damage_block(files.ledger, 2)
    done = run("verify", CORE_PEER_FILESYSTEMPATH=str(tmp_path / "volume"))
    assert done.returncode == 3
    assert f"channel {CHANNEL}: DAMAGED" in done.stdout
    assert f"{files.ledger}: the data of block 2 does not fit its header" in done.stdout
    assert "stop the service and run `rebuild`" in done.stdout


def test_json_holds_the_same(files: ChannelFiles, tmp_path: Path) -> None:
    with changing(files.ledger) as connection:
        connection.execute("DELETE FROM history WHERE key = 'c' AND block = 1")
    done = run("verify", "--json", "--volume", tmp_path / "volume", "--scratch", tmp_path)
    assert done.returncode == 3
    record = json.loads(done.stdout)
    assert (record["volume"], record["sound"]) == (str(tmp_path / "volume"), False)
    [channel] = record["channels"]
    assert (channel["channel"], channel["blocks"], channel["sound"]) == (CHANNEL, BLOCKS, False)
    [finding] = channel["findings"]
    assert finding["file"] == str(files.ledger)


def test_there_and_back(files: ChannelFiles, tmp_path: Path) -> None:
    volume, backup = tmp_path / "volume", tmp_path / "backup"
    done = run("backup", "--volume", volume, "--to", backup)
    assert done.returncode == 0
    assert done.stdout.startswith(f"channel {CHANNEL}: {BLOCKS} blocks copied to {backup}, and")
    assert f"channel {CHANNEL}: sound" in done.stdout
    again = run("restore", "--volume", volume, "--from", backup)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith(
        f"chaincode-support-ledger: Channel {CHANNEL} is there already"
    )
    assert run("restore", "--volume", volume, "--from", backup, "--force").returncode == 0
    rebuilt = run("rebuild", "--volume", volume)
    assert rebuilt.returncode == 0
    assert rebuilt.stdout == f"channel {CHANNEL}: made again from {BLOCKS} blocks\n"
    files.ledger.unlink()
    judged = run("rebuild", "--volume", volume, "--json")
    [record] = json.loads(judged.stdout)["channels"]
    assert (record["blocks"], record["judged"]) == (BLOCKS, BLOCKS)
    assert run("verify", "--volume", volume).returncode == 0


def test_a_backup_of_what_is_damaged_says_so(files: ChannelFiles, tmp_path: Path) -> None:
    damage_block(files.ordering, 2)
    volume = tmp_path / "volume"
    done = run("backup", "--json", "--volume", volume, "--to", tmp_path / "backup")
    assert done.returncode == 3
    record = json.loads(done.stdout)
    assert (record["sound"], record["copied"][CHANNEL]["blocks"]) == (False, BLOCKS)
    blindly = run("backup", "--volume", volume, "--to", tmp_path / "blindly", "--no-verify")
    assert blindly.returncode == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("verify", "--channel", "nope"),
            "There is no channel nope on {volume}: it has mychannel.",
        ),
        (
            ("backup", "--to", "{volume}"),
            "{volume} is not empty: name a new folder for the backup.",
        ),
        (
            ("restore", "--from", "{volume}"),
            "{volume} holds no backup, or one that was not finished: it has no manifest.json.",
        ),
        (
            ("rebuild",),
            "Channel mychannel is in use by a test, which holds {volume}/ordering/mychannel.lock: "
            "stop that first.",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    files: ChannelFiles, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    volume = str(tmp_path / "volume")
    claim = Claim(files, "a test")
    done = run(*(word.format(volume=volume) for word in words), "--volume", volume)
    as_json = run(*(word.format(volume=volume) for word in words), "--volume", volume, "--json")
    claim.release()
    said = sentence.format(volume=volume)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"chaincode-support-ledger: {said}\n"
    assert (as_json.returncode, json.loads(as_json.stdout)) == (1, {"error": said})


@pytest.mark.parametrize("command", ["verify", "rebuild"])
def test_a_file_that_cannot_be_written_is_one_sentence(
    files: ChannelFiles, tmp_path: Path, command: str
) -> None:
    for file in (files.ledger, files.ordering):
        with changing(file) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # else reading writes, beside it
    before = [file.read_bytes() for file in (files.ledger, files.ordering)]
    words = ["-m", "chaincode_support.maintenance", command, "--volume", str(tmp_path / "volume")]
    done = subprocess.run(
        # Files may have 8 KB in this process.
        ["sh", "-c", 'ulimit -f 16; exec "$@"', "sh", sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"chaincode-support-ledger: {files.ledger.parent}/.maintenance-")
    assert "cannot be written: " in last
    assert [file.read_bytes() for file in (files.ledger, files.ordering)] == before
    assert not list(files.ledger.parent.glob(".maintenance-*"))


def test_a_volume_without_channels_is_one_sentence(tmp_path: Path) -> None:
    done = run("verify", "--volume", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"chaincode-support-ledger: There is no channel on {tmp_path}: name the volume of "
        "chaincode-support with --volume.\n"
    )


@pytest.mark.parametrize("command", ["verify", "backup", "restore", "rebuild"])
def test_help_gives_an_example_and_the_exit_statuses(command: str) -> None:
    shown = run(command, "--help").stdout
    assert f"example:\n  chaincode-support-ledger {command}" in shown
    assert "  3  a channel is damaged" in shown
