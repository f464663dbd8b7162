"""`selvedge ledger` on homes whose services were stopped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from testchannel import CHANNEL, Network
from volumes import BLOCKS, copy_of, damage_block, make_volume

from chaincode_support.volume import ChannelFiles, Claim
from selvedge_cli import ENVIRONMENT

SELVEDGE = Path(sys.executable).with_name("selvedge")


def run(*words: object, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SELVEDGE, "ledger", *map(str, words), "--home", str(home)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_volume(Network(), tmp_path_factory.mktemp("volume"))


@pytest.fixture
def home(volume: Path, tmp_path: Path) -> Path:
    copy_of(volume, tmp_path / "home" / "chaincode-support")
    return tmp_path / "home"


def test_a_ledger_goes_away_and_comes_back(home: Path, tmp_path: Path) -> None:
    backup, new = tmp_path / "backup", tmp_path / "new"
    verified = run("verify", home=home)
    assert (verified.returncode, verified.stdout.splitlines()[0]) == (
        0,
        f"channel {CHANNEL}: sound",
    )
    assert f"{CHANNEL}: blocks of the ledger: {BLOCKS} of {BLOCKS}" in verified.stderr
    copied = run("backup", "--to", backup, "--json", home=home)
    assert copied.returncode == 0
    assert json.loads(copied.stdout)["copied"][CHANNEL]["blocks"] == BLOCKS
    assert run("restore", "--from", backup, home=new).returncode == 0
    assert run("restore", "--from", backup, home=new).returncode == 1
    assert run("restore", "--from", backup, "--force", home=new).returncode == 0
    assert run("rebuild", "--channel", CHANNEL, home=new).returncode == 0
    again = run("verify", home=new)
    assert again.stdout == verified.stdout


def test_damage_has_a_status_of_its_own(home: Path, tmp_path: Path) -> None:
    for part in ("ledger", "ordering"):
        damage_block(home / "chaincode-support" / part / f"{CHANNEL}.sqlite", 4)
    damaged = run("verify", "--json", "--scratch", tmp_path, home=home)
    assert damaged.returncode == 3
    assert json.loads(damaged.stdout)["sound"] is False
    assert run("backup", "--to", tmp_path / "backup", home=home).returncode == 3
    assert run("backup", "--to", tmp_path / "other", "--no-verify", home=home).returncode == 0
    lost = run("rebuild", home=home)
    assert lost.returncode == 1
    assert "or give up this block and all that follow with --force" in lost.stderr
    assert run("rebuild", "--force", home=home).returncode == 0
    assert run("verify", home=home).returncode == 0


def test_running_services_are_in_the_way(home: Path) -> None:
    files = ChannelFiles.on(home / "chaincode-support", CHANNEL)
    claim = Claim(files, "a running chaincode-support")
    refused = run("rebuild", home=home)
    claim.release()
    assert refused.returncode == 1
    assert refused.stderr == (
        f"selvedge ledger rebuild: Channel {CHANNEL} is in use by a running chaincode-support, "
        f"which holds {files.lock}: stop that first.\n"
    )


@pytest.mark.parametrize("words", [("verify",), ("backup", "--to", "x"), ("rebuild",)])
def test_a_home_without_a_ledger_is_one_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(*words, home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"selvedge: there is no ledger in {tmp_path}: give the home of")
    as_json = run(*words, "--json", home=tmp_path)
    assert "there is no ledger in" in json.loads(as_json.stdout)["error"]


def test_a_home_whose_volume_has_no_channel_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "chaincode-support").mkdir()
    done = run("verify", home=tmp_path)
    assert done.stderr == (
        f"selvedge ledger verify: There is no channel on {tmp_path}/chaincode-support: give the "
        "home of `selvedge up` with --home.\n"
    )


def test_what_to_do_is_told_in_words_that_can_be_typed(home: Path) -> None:
    damage_block(home / "chaincode-support" / "ledger" / f"{CHANNEL}.sqlite", 4)
    assert "stop the service and run `selvedge ledger rebuild`" in run("verify", home=home).stdout


def test_transactions_are_judged_again_unless_that_is_not_wanted(home: Path) -> None:
    assert f"judged again     {BLOCKS}, to the same verdicts" in run("verify", home=home).stdout
    unjudged = run("verify", "--no-judge", home=home)
    assert (unjudged.returncode, "judged again" in unjudged.stdout) == (0, False)


def test_where_a_failure_came_from_is_shown_to_who_asks(home: Path) -> None:
    shown = run("verify", "--channel", "nope", "--debug", home=home)
    assert shown.stderr.startswith("Traceback")
    assert "NothingThere: There is no channel nope" in shown.stderr


@pytest.mark.parametrize(
    ("command", "statuses"),
    [
        ("verify", "1  it could not be done, and nothing was changed\n    3  a channel is damaged"),
        ("backup", "1  it could not be done, and nothing was changed\n    3  it is complete, and"),
        ("restore", "1  it could not be done, or the backup is not sound, and nothing was changed"),
        ("rebuild", "1  it could not be done, and nothing was changed\n\n  Example"),
    ],
)
def test_help_gives_an_example_and_the_exit_statuses(
    command: str, statuses: str, tmp_path: Path
) -> None:
    shown = run(command, "--help", home=tmp_path).stdout
    assert f"Example: selvedge ledger {command}" in shown
    assert statuses in shown
