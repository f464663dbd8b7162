"""A contract whose process is started and stopped here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.e2e.clients import Client
from tests.e2e.stack import Stack, eventually
from tests.shims.chaincodes import Chaincode, Command
from tests.shims.contract import Contract

_GRACE = 10.0


class Running(Contract):
    """A contract that runs from `start` to `stop`, or until its process dies.

    Args:
        name: under which it registers.
        command: of its process, with all of its environment.
        log: where its output goes.
    """

    def __init__(
        self, client: Client, chaincode: Chaincode, name: str, command: Command, log: Path
    ) -> None:
        super().__init__(client, name)
        self.chaincode = chaincode
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start its process, again if it has died, and wait until the contract answers."""
        self.stop()
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(word) for word in self._command.words],
                cwd=self._command.folder,
                env={**os.environ, **self._command.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(
            lambda: self.answers() or self._ended(), f"{self.name} answers; its log: {self._log}"
        )
        assert not self._ended(), self._log.read_text()

    def kill(self) -> None:
        """End its process at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End its process, if it has not ended."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=_GRACE)
        except subprocess.TimeoutExpired:
            self.kill()

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None


def dialling(
    stack: Stack, client: Client, chaincode: Chaincode, folder: Path, name: str | None = None
) -> Running:
    """A chaincode that will dial in over mTLS, with a certificate of its own.

    Args:
        folder: of its log.
        name: to register under, where it is not the chaincode's own.
    """
    name = name or chaincode.name
    environment: dict[str, str] = stack.json("ca", "issue", "--chaincode", name)["environment"]
    command = chaincode.command(environment["CORE_CHAINCODE_ID_NAME"]).within(environment)
    return Running(client, chaincode, name, command, folder / f"{name}.log")
