"""The service as a process of its own, enrolled with a real certificate authority."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selvedge_common.enrolment import Enrolment, enrol_chaincode, enrol_user

STOP = 15.0


@dataclass
class Process:
    """A service that logs JSON; `serving` is its line of readiness."""

    popen: subprocess.Popen[str]
    serving: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @classmethod
    def start(
        cls, module: str, settings: Mapping[str, object], *arguments: str, until: str = "serving"
    ) -> "Process":
        """Start it, and return at its log event `until`, or once it has ended instead."""
        environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
        popen = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        process = cls(popen)
        assert popen.stderr is not None
        for line in popen.stderr:
            process.lines.append(line)
            if line.startswith("{") and json.loads(line)["event"] == until:
                process.serving = json.loads(line)
                return process
        process.popen.communicate(timeout=STOP)  # it ended instead
        return process

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.popen.send_signal(signal.SIGTERM)
        _, rest = self.popen.communicate(timeout=STOP)
        self.lines.append(rest)
        return self.popen.returncode

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate(timeout=STOP)


class Authority:
    """A running certificate authority, and the files of whoever enrolled with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = Process.start("certificate_authority", self.settings, "serve")
        assert self.process.serving, self.process.lines

    @property
    def address(self) -> str:
        return str(self.process.serving["address"])

    @property
    def settings(self) -> dict[str, object]:
        return {
            "CORE_CA_FILESYSTEMPATH": self.folder / "ca",
            "CORE_CA_LISTENADDRESS": "127.0.0.1:0",
            "CORE_ENROLMENT_FOLDER": self.folder / "enrol",
            "CORE_OPERATIONS_LISTENADDRESS": "127.0.0.1:0",
        }

    def enrolment(self, name: str, *profiles: str) -> Enrolment:
        """Fresh tokens, from the ca's own command."""
        wanted = [argument for profile in profiles for argument in ("--profile", profile)]
        made = subprocess.run(
            [sys.executable, "-m", "certificate_authority", "token", "--name", name, *wanted],
            env={**os.environ, **{key: str(value) for key, value in self.settings.items()}},
            stdout=subprocess.PIPE,
            check=True,
        )
        return Enrolment.parse(made.stdout, "the ca's answer")

    async def user(self, name: str) -> Path:
        """A user's folder: msp/ and tls/."""
        folder = self.folder / "users" / name
        enrolment = self.enrolment(name, "user", "tls-client")
        await enrol_user(folder, enrolment, ca_address=self.address)
        return folder

    async def chaincode(self, name: str) -> Path:
        """A chaincode's folder: ca.crt, client.crt, client.key."""
        folder = self.folder / "chaincodes" / name
        enrolment = self.enrolment(name, "chaincode")
        await enrol_chaincode(folder, enrolment, name=name, ca_address=self.address)
        return folder

    def service_settings(self, volume: Path, **more: object) -> dict[str, object]:
        """The settings of a chaincode-support of this authority, on free ports."""
        return {
            "CORE_PEER_FILESYSTEMPATH": volume,
            "CORE_CA_ENROLMENT": self.folder / "enrol/chaincode-support/enrolment.json",
            "CORE_CA_ADDRESS": self.address,
            "CORE_PEER_LISTENADDRESS": "127.0.0.1:0",
            "CORE_PEER_CHAINCODELISTENADDRESS": "127.0.0.1:0",
            "CORE_ORDERER_LISTENADDRESS": "127.0.0.1:0",
            "CORE_OPERATIONS_LISTENADDRESS": "127.0.0.1:0",
            **more,
        }
