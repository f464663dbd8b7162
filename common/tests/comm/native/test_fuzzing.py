"""The fuzzer's seeds, and a short run of it; `make fuzz` is the long one."""

import subprocess
import sys
from pathlib import Path

from common.tests.comm.native.fuzz.seeds import seeds

ROOT = Path(__file__).parents[4]
# In a process of its own: the target changes the process that it is in.
FEED_SEEDS = """
from common.tests.comm.native.fuzz.seeds import seeds
from common.tests.comm.native.fuzz.target import Target
target = Target()
written = b"".join(map(target.feed, seeds()))
target.close()
print(len(written))
"""


def _run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_has_to_hold_does_for_every_seed(tmp_path: Path) -> None:
    ran = _run("-c", FEED_SEEDS, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 10_000
    assert len(set(seeds())) > 80


def test_fuzzer_finds_nothing_in_a_short_run(tmp_path: Path) -> None:
    ran = _run(
        *("-m", "common.tests.comm.native.fuzz"),
        *("--runs", "4000", "--seconds", "20", "--seed", "1"),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "Done 4000 runs" in ran.stderr or "runs in 2" in ran.stderr
    assert not list(tmp_path.glob("crash-*"))


def test_input_that_was_kept_can_be_run_again(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(max(seeds(), key=len))
    ran = _run("-m", "common.tests.comm.native.fuzz", "kept", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (
        "examples:" in _run("-m", "common.tests.comm.native.fuzz", "--help", folder=tmp_path).stdout
    )
