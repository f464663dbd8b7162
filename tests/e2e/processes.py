"""The driver that runs the services as local processes: `selvedge up --demo`."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.stack import SELVEDGE, Stack, eventually

MODULES = {
    "ca": "certificate_authority",
    "chaincode-support": "chaincode_support",
    "event-hub": "event_hub",
}


class Processes(Stack):
    """One `selvedge up --demo`, which starts again what dies."""

    name = "processes"
    transport = "grpcio"
    process: subprocess.Popen[bytes]

    @property
    def output(self) -> Path:
        """What `selvedge up` printed."""
        return self.folder / "up.log"

    def up(self) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [SELVEDGE, "up", "--demo"],
                cwd=self.folder,
                env=self.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(
            lambda: "Ctrl-C" in self.output.read_text() or self.process.poll() is not None,
            f"selvedge up is ready; its output: {self.output}",
            timeout=60,
        )
        assert self.process.poll() is None, self.output.read_text()

    def down(self) -> None:
        if not hasattr(self, "process"):
            return
        self.process.send_signal(signal.SIGINT)
        ended = self.process.wait(timeout=30)
        assert ended == 0, self.output.read_text()

    def kill(self, service: str) -> None:
        before = self._pid(service)
        assert before is not None
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self._pid(service) not in (None, before), f"{service} is started again")
        eventually(lambda: self.healthy(service), f"{service} is healthy again")

    @contextmanager
    def cut_off(self, service: str) -> Iterator[None]:
        """Stop its process: its connections stay, and nothing comes."""
        pid = self._pid(service)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def log(self, service: str) -> str:
        return (self.home / "logs" / f"{service}.log").read_text()

    def _pid(self, service: str) -> int | None:
        """The child of `selvedge up` that is this service now."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in map(int, children.read_text().split()):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            except FileNotFoundError:
                continue  # it ended in between
            if MODULES[service] in words:
                return pid
        return None
