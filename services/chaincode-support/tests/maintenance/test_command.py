"""The command as operators and scripts see it: what it prints, where, and its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from testchannel import CHANNEL
from volumes import BLOCKS, changing, damage_block, leave_room

from chaincode_support.maintenance import command
from chaincode_support.volume import ChannelFiles, Claim
from selvedge_common.protoutil import blocks, metadata
from selvedge_protos.peer import transaction_pb2


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
        f"channel {CHANNEL}: sound\n  blocks           {BLOCKS}, {BLOCKS} in the ordering log\n"
        f"  judged again     {BLOCKS}, to the same verdicts\n"
    )
    assert "judged again" not in run("verify", "--volume", sound, "--no-judge").stdout
    assert f"{CHANNEL}: blocks of the ledger: {BLOCKS} of {BLOCKS}" in done.stderr.splitlines()


def test_a_damaged_one_says_where_and_what_to_do(files: ChannelFiles, tmp_path: Path) -> None:
    damage_block(files.ledger, 2)
    done = run("verify", CORE_PEER_FILESYSTEMPATH=str(tmp_path / "volume"))
    assert done.returncode == 3
    assert f"channel {CHANNEL}: DAMAGED" in done.stdout
    assert f"{files.ledger}: the data of block 2 does not fit its header" in done.stdout
    assert "stop the service and run `chaincode-support-ledger rebuild`; what" in done.stdout
    assert "judged otherwise" not in done.stdout


def test_a_verdict_that_differs_is_told_with_what_it_may_come_from(
    files: ChannelFiles, tmp_path: Path
) -> None:
    with changing(files.ledger) as connection:
        query = "SELECT bytes FROM block WHERE number = 5"
        block = blocks.parse_block(connection.execute(query).fetchone()[0])
        # It wrote metadata to a key, of which there is no history: nothing but the state shows it.
        metadata.set_validation_codes(block, [transaction_pb2.MVCC_READ_CONFLICT])
        connection.execute(
            "UPDATE block SET bytes = ? WHERE number = 5", (block.SerializeToString(),)
        )
        connection.execute(
            "UPDATE tx SET code = ? WHERE block = 5", (transaction_pb2.MVCC_READ_CONFLICT,)
        )
        connection.execute("UPDATE state SET metadata = NULL, block = 2, tx = 0 WHERE key = 'a'")
    done = run("verify", "--volume", tmp_path / "volume")
    assert done.returncode == 3
    assert " of block 5 is MVCC_READ_CONFLICT, and judged again it is VALID\n" in done.stdout
    assert f"judged again     {BLOCKS - 1}, to the same verdicts" in done.stdout
    assert "an earlier release that committed that block may have judged otherwise" in done.stdout
    assert "what neither file holds" not in done.stdout
    assert run("verify", "--volume", tmp_path / "volume", "--no-judge").returncode == 0


def test_a_disk_without_room_can_be_left_alone(
    files: ChannelFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_room(monkeypatch, 10_000)
    volume = files.ledger.parent.parent
    monkeypatch.setattr(sys, "argv", ["ledger", "verify", "--volume", str(volume)])
    # What a command does to its process must not outlast it in this one.
    monkeypatch.setattr("chaincode_support.maintenance.command.logs.configure", lambda *_: None)
    monkeypatch.setattr("chaincode_support.maintenance.command.signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.endswith(
        "make room on it. Or name a folder on another one with --scratch.\n"
    )


def test_what_is_given_up_is_kept_and_said_where(files: ChannelFiles, tmp_path: Path) -> None:
    for file in (files.ledger, files.ordering):
        damage_block(file, 4)
    done = run("rebuild", "--force", "--volume", tmp_path / "volume")
    kept = [next(file.parent.glob("*.damaged-*Z")) for file in (files.ordering, files.ledger)]
    assert f"  kept as they were: {kept[0]}, {kept[1]}; remove them when" in done.stdout


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
    assert (finding["file"], finding["verdict"]) == (str(files.ledger), False)
    assert channel["judged"] == BLOCKS


def test_there_and_back(files: ChannelFiles, tmp_path: Path) -> None:
    volume, backup = tmp_path / "volume", tmp_path / "backup"
    done = run("backup", "--volume", volume, "--to", backup)
    assert done.returncode == 0
    assert done.stdout.startswith(f"channel {CHANNEL}: {BLOCKS} blocks copied to {backup}, and")
    assert f"channel {CHANNEL}: sound" in done.stdout
    again = run("restore", "--volume", volume, "--from", backup)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith(
        f"chaincode-support-ledger restore: Channel {CHANNEL} is there already"
    )
    restored = run("restore", "--volume", volume, "--from", backup, "--force")
    assert restored.returncode == 0
    assert restored.stdout.startswith(
        f"channel {CHANNEL}: {BLOCKS} blocks restored from {backup}\nchannel {CHANNEL}: sound\n"
    )
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
    told = run("backup", "--volume", volume, "--to", tmp_path / "again")
    assert "the copy is as the channel is: do not rely on it; stop the service, run" in told.stdout
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
            ("restore", "--from", "{volume}/nope"),
            "There is no folder {volume}/nope: name the one that the backup was made to.",
        ),
        (
            ("backup", "--to", "{volume}/ledger/monday"),
            "{volume}/ledger/monday is in {volume}/ledger, where the channels themselves are: name "
            "a folder somewhere else for the backup, best on another disk.",
        ),
        (
            ("backup", "--to", "/dev/null/monday"),
            "/dev/null/monday cannot be used: Not a directory. Check that path, and the disk that "
            "it is on.",
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
    assert done.stderr == f"chaincode-support-ledger {words[0]}: {said}\n"
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
    assert last.startswith(
        f"chaincode-support-ledger {command}: {files.ledger.parent}/.maintenance-"
    )
    assert "cannot be written: " in last
    assert [file.read_bytes() for file in (files.ledger, files.ordering)] == before
    assert not list(files.ledger.parent.glob(".maintenance-*"))


def test_a_volume_without_channels_is_one_sentence(tmp_path: Path) -> None:
    done = run("verify", "--volume", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"chaincode-support-ledger verify: There is no channel on {tmp_path}: name the volume of "
        "chaincode-support with --volume.\n"
    )


def test_sentences_go_by_the_name_that_was_typed(files: ChannelFiles, tmp_path: Path) -> None:
    damage_block(files.ledger, 2)
    typed = ("--typed", "selvedge ledger")
    damaged = run(*typed, "verify", "--volume", tmp_path / "volume")
    assert "stop the service and run `selvedge ledger rebuild`" in damaged.stdout
    empty = run(*typed, "verify", "--volume", tmp_path)
    assert empty.stderr == (
        f"selvedge ledger verify: There is no channel on {tmp_path}: give the home of `selvedge "
        "up` with --home.\n"
    )


def test_where_a_failure_came_from_is_shown_to_who_asks(tmp_path: Path) -> None:
    shown = run("verify", "--volume", tmp_path, "--debug")
    assert shown.returncode == 1
    assert shown.stderr.startswith("Traceback")
    assert "NothingThere: There is no channel on" in shown.stderr


@pytest.mark.parametrize(
    ("command", "statuses"),
    [
        ("verify", "1  it could not be done, and nothing was changed\n  3  a channel is damaged"),
        ("backup", "1  it could not be done, and nothing was changed\n  3  it is complete, and as"),
        ("restore", "1  it could not be done, or the backup is not sound, and nothing was changed"),
        ("rebuild", "1  it could not be done, and nothing was changed\n\nexample"),
    ],
)
def test_help_gives_an_example_and_the_exit_statuses(command: str, statuses: str) -> None:
    shown = run(command, "--help").stdout
    assert f"example:\n  chaincode-support-ledger {command}" in shown
    assert statuses in shown
    assert "--typed" not in shown + run("--help").stdout
