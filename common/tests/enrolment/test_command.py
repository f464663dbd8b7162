"""The console form, as a container's start script calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def enrolment(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selvedge_common.enrolment", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_has_an_example() -> None:
    shown = enrolment("--help")
    assert shown.returncode == 0
    assert "example:\n  python -m selvedge_common.enrolment chaincode --name" in shown.stdout


@pytest.mark.parametrize(
    "holder", [["chaincode", "--name=cc"], ["producer", "--name=p"], ["user"], ["service"]]
)
def test_it_fails_with_one_sentence(tmp_path: Path, holder: list[str]) -> None:
    file = tmp_path / "enrolment.json"
    where = [f"--folder={tmp_path}", f"--enrolment={file}", "--timeout=0.1"]
    failed = enrolment(*holder, *where)
    assert failed.returncode == 1
    last = failed.stderr.splitlines()[-1]
    assert last.startswith(
        f"enrolment: not enrolled within 0.1 s: there is no enrolment file {file}"
    )
