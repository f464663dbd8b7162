"""Commands that begin only under their parent, and end with it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selvedge_common.lifeline import ending_with_parent

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
PATIENCE = 30.0


def test_the_command_is_begun_by_its_parent_and_by_nobody_else() -> None:
    words = [*ending_with_parent(), "/bin/echo", "begun"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "begun\n"
    words[words.index(str(os.getpid()))] = str(os.getppid())
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has ended" in done.stderr


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (
            "#!/no/such/interpreter\n",
            "{0} (or the interpreter in its first line) cannot be run: No such file or directory\n",
        ),
        ("no program", "{0} cannot be run: Exec format error\n"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_sentence(
    tmp_path: Path, program: str, sentence: str
) -> None:
    file = tmp_path / "program"
    file.write_text(program)
    file.chmod(0o755)
    words = [*ending_with_parent(), str(file)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (1, sentence.format(file))


def test_it_ends_when_its_parent_is_killed() -> None:
    program = """
import subprocess
from selvedge_common.lifeline import ending_with_parent
child = subprocess.Popen([*ending_with_parent(), "/bin/sleep", "1000"])
print(child.pid, flush=True)
child.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as told:
        child = Path("/proc", told.readline().strip())
    # Before that it is still the program that becomes it.
    deadline = time.monotonic() + PATIENCE
    while b"/bin/sleep" not in (child / "cmdline").read_bytes().split(b"\0")[:1]:
        assert time.monotonic() < deadline, "the command did not begin"
        time.sleep(0.01)
    parent.kill()
    parent.wait(PATIENCE)
    while child.exists() and _runs(child):
        assert time.monotonic() < deadline, "the command goes on without its parent"
        time.sleep(0.01)


def _runs(process: Path) -> bool:
    """Whether it is more than an entry that nobody has collected."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
