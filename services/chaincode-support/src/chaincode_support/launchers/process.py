"""A chaincode that the peer starts: a child process, with the environment that Fabric gives one.

Follows core/chaincode/chaincode_support.go of Fabric 1.0.6 and
core/container/dockercontroller/dockercontroller.go of 2.5 for the environment, and
core/container/externalbuilder/instance.go of 2.5 for its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chaincode_support.launchers.errors import NotLaunched
from chaincode_support.launchers.output import Output, OutputBounds
from chaincode_support.launchers.package import Command, Package
from selvedge_common.enrolment import EnrolmentError, enrol_chaincode, layout
from selvedge_common.enrolment.material import defect
from selvedge_common.lifeline import ending_with_parent
from selvedge_common.logs import get_logger

log = get_logger("chaincode.process")

# What of the peer's own variables a chaincode gets. Others are secrets, or mean something else to
# a chaincode, as CORE_PEER_ADDRESS does.
_HANDED_ON = ("PATH", "HOME", "LANG")
# Seconds in which what was printed last is read once nobody is left to print.
_LAST_WORDS = 1.0


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What a started chaincode is told, and what it may take.

    Attributes:
        address: the chaincode listener, as a chaincode here reaches it.
        msp_id: the peer's organisation.
        root: the file of the root by which the peer is verified; None for plaintext.
        certificate_required: whether the listener takes nobody without a certificate.
        host_override: the name in the peer's certificate, where it is not the address's host.
        log_level, shim_log_level, log_format: how it is to log.
        grace: seconds to end after SIGTERM.
        output: bounds of what it prints.
        ca_address: host:port of the ca, where it is not the one in an enrolment file.
        enrol_patience: seconds to wait for that ca.
    """

    address: str
    msp_id: str
    root: Path | None
    certificate_required: bool
    host_override: str
    log_level: str
    shim_log_level: str
    log_format: str
    grace: float
    output: OutputBounds
    ca_address: str | None
    enrol_patience: float


class ChaincodeProcess:
    """One run of a chaincode's program, in a process group of its own."""

    again = "start it again"
    fails_at_once = True
    details = ""

    def __init__(self, package: Package, command: Command, settings: ProcessSettings) -> None:
        self._package = package
        self._command = command
        self._settings = settings
        self._output = Output(package.name, settings.output)
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._killing: asyncio.TimerHandle | None = None

    @property
    def doing(self) -> str:
        """What it does."""
        if self._process is None:
            return "starting"
        if self._stopping:
            return f"stopping process {self._process.pid}"
        return f"running as process {self._process.pid}"

    @property
    def reached(self) -> bool:
        """Whether it runs."""
        return self._process is not None

    @property
    def last_words(self) -> str:
        """What it printed last."""
        lines = self._output.last_lines
        return f"the last it printed: {lines}" if lines else "it printed nothing"

    async def run(self) -> str:
        """Start it, and wait for its end; how it ended. Raises NotLaunched."""
        tls = await self._tls_environment()
        environment = self._environment(tls)
        words = self._words(environment)
        if self._stopping:
            return "was stopped before it began"
        reading, writing = os.pipe()
        # Not asyncio's own pipes: a process with such has not ended for asyncio before they are
        # closed, which those that it started may keep from happening.
        reader, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: self._output, os.fdopen(reading, "rb", buffering=0)
        )
        try:
            try:
                self._process = await self._start(words, environment, writing)
            finally:
                os.close(writing)
            await self._attend(self._process)
        finally:
            reader.close()
        return f"{_how(self._process.returncode)}; {self.last_words}"

    def stop(self) -> None:
        """Have it end: SIGTERM to the whole group, and SIGKILL after the grace."""
        self._stopping = True
        running = self._process is not None and self._process.returncode is None
        if running and self._killing is None:
            self._signal(signal.SIGTERM)
            self._killing = asyncio.get_running_loop().call_later(
                self._settings.grace, self._signal, signal.SIGKILL
            )

    async def _tls_environment(self) -> dict[str, str]:
        root, name = self._settings.root, self._package.name
        if root is None:
            return {"CORE_PEER_TLS_ENABLED": "false"}
        environment = {
            "CORE_PEER_TLS_ENABLED": "true",
            "CORE_PEER_TLS_ROOTCERT_FILE": str(root),
        }
        if self._settings.host_override:
            environment["CORE_PEER_TLS_SERVERHOSTOVERRIDE"] = self._settings.host_override
        folder, enrolment = self._command.tls, self._command.enrolment
        if enrolment is not None:
            try:
                await enrol_chaincode(
                    folder,
                    enrolment,
                    name=name,
                    ca_address=self._settings.ca_address,
                    patience=self._settings.enrol_patience,
                )
            except EnrolmentError as error:
                raise NotLaunched(f"was not started, for it has no certificate: {error}") from error
        (credential,) = layout.chaincode(name)
        missing = await asyncio.to_thread(defect, folder, credential, None)
        if missing is None:
            certificate, key = folder / credential.certificate, folder / credential.key
            return environment | {
                "CORE_TLS_CLIENT_CERT_FILE": str(certificate),
                "CORE_TLS_CLIENT_KEY_FILE": str(key),
                "CORE_TLS_CLIENT_CERT_PATH": f"{certificate}.b64",
                "CORE_TLS_CLIENT_KEY_PATH": f"{key}.b64",
            }
        if self._settings.certificate_required:
            raise NotLaunched(
                f"was not started, for it has no certificate to show to this peer ({missing} in "
                f"{folder}): run `selvedge ca issue --chaincode {name}`, and name the folder that "
                f'it writes as "tls" in {self._package.place / "metadata.json"}'
            )
        return environment

    def _environment(self, tls: Mapping[str, str]) -> dict[str, str]:
        settings = self._settings
        handed_on = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        logging = {
            "CORE_CHAINCODE_LOGGING_LEVEL": settings.log_level,
            "CORE_CHAINCODE_LOGGING_SHIM": settings.shim_log_level,
            "CORE_CHAINCODE_LOGGING_FORMAT": settings.log_format,
        }
        return {
            **handed_on,
            "CORE_CHAINCODE_ID_NAME": f"{self._package.name}:{self._package.version}",
            "CORE_PEER_ADDRESS": settings.address,
            "CORE_PEER_LOCALMSPID": settings.msp_id,
            **{name: value for name, value in logging.items() if value},
            **tls,
            **self._command.environment,
        }

    def _words(self, environment: Mapping[str, str]) -> list[str]:
        """The command with its variables filled in, and its program found."""
        directory = self._command.directory
        if not directory.is_dir():
            raise self._not_started(f"its directory {directory} is not there")
        words = [string.Template(word).safe_substitute(environment) for word in self._command.words]
        program = words[0] if os.sep not in words[0] else str(directory / words[0])
        found = shutil.which(program, path=environment.get("PATH"))
        if found is None:
            log.info(
                "program not found",
                chaincode=self._package.name,
                program=program,
                path=environment.get("PATH"),
            )
            raise self._not_started(
                f"there is no program {program} that may be run on the PATH that it gets from the "
                "peer, whose log has it: give the program's path"
            )
        return [str(Path(found).absolute()), *words[1:]]

    async def _start(
        self, words: list[str], environment: Mapping[str, str], output: int
    ) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *ending_with_parent(),
                *words,
                env=environment,
                cwd=self._command.directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            # Not all of its words: in them are variables filled in, which may be secrets.
            raise self._not_started(
                f"its program {words[0]} could not be run: {error.strerror}"
            ) from error

    async def _attend(self, process: asyncio.subprocess.Process) -> None:
        """Wait for its end, and leave nobody of its group."""
        log.info(
            "chaincode started",
            chaincode=self._package.name,
            package=self._package.id,
            pid=process.pid,
        )
        if self._stopping:
            self.stop()
        try:
            await process.wait()
            if self._stopping:
                # The program that was started may be done before those that it started are.
                await self._ended(self._settings.grace + _LAST_WORDS)
        finally:
            self._signal(signal.SIGKILL)
            if self._killing is not None:
                self._killing.cancel()
        await self._ended(_LAST_WORDS)

    async def _ended(self, seconds: float) -> None:
        """Wait until nobody is left who could print, but no longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._output.ended.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _not_started(self, reason: str) -> NotLaunched:
        return NotLaunched(
            f"was not started: {reason}; correct {self._package.place / 'metadata.json'}"
        )


def _how(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
