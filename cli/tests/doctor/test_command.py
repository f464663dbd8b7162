"""`selvedge doctor` as one types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli.tests.homes import AGEING, Home

from selvedge_cli import ENVIRONMENT
from selvedge_cli.doctor import examinations
from selvedge_cli.doctor.findings import error, note, warning

SELVEDGE = Path(sys.executable).with_name("selvedge")
# Nothing listens there.
NOWHERE = {
    f"SELVEDGE_{name}": f"localhost:{port}"
    for port, name in enumerate(
        (
            *("PEER", "CHAINCODE", "ORDERER", "EVENTS", "CA"),
            *("PEER_OPERATIONS", "EVENTS_OPERATIONS", "CA_OPERATIONS"),
        ),
        start=1,
    )
}


def run(home: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SELVEDGE, "doctor", "--home", home, *words],
        env=ENVIRONMENT | NOWHERE | environ,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.add_user("user1")
    home.add_user("alice", span=AGEING)
    return home


def test_findings_are_a_line_each_and_a_summary(home: Home) -> None:
    done = run(home.path, CORE_PEER_TLS_ENABLED="yes", CORE_PEER_LOCALMSPID="Org2MSP")
    *lines, summary = done.stdout.splitlines()
    assert done.returncode == 1
    assert done.stderr == ""
    assert summary == "2 errors, 2 warnings, 1 note"
    assert lines[0] == (
        "error    CORE_PEER_TLS_ENABLED: it is 'yes', which is no boolean; export "
        "CORE_PEER_TLS_ENABLED=true"
    )
    assert {line.split()[0] for line in lines} == {"error", "warning", "note"}


def test_json_holds_the_same(home: Home) -> None:
    done = run(home.path, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["well"]) == (1, False)
    assert [finding["severity"] for finding in report["findings"]] == [
        *("warning", "warning", "error")
    ]
    assert report["findings"][0].keys() == {"severity", "where", "what", "remedy"}


def test_nothing_is_changed(home: Home) -> None:
    before = sorted((file, file.stat().st_mtime_ns) for file in home.path.rglob("*"))
    run(home.path, "--chaincode", "mycc")
    assert sorted((file, file.stat().st_mtime_ns) for file in home.path.rglob("*")) == before


def test_all_examinations_are_made(home: Home) -> None:
    folder = Path(examinations.__file__).parent
    subjects = {file.stem for file in folder.glob("*.py") if "\ndef examine(" in file.read_text()}
    made = {examine.__module__.rpartition(".")[2] for examine in examinations.EXAMINATIONS}
    assert made == subjects - {"examinations"}


def test_strangers_text_stays_on_its_line() -> None:
    for found in (error, warning, note):
        assert "\n" not in str(found("CN=\x1b[31m", "two\nlines", "see\nthere"))
