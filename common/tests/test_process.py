"""A service's process and its signals, in real processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from selvedge_common.process import Shutdown

_PROGRAM = """
import asyncio, sys
from selvedge_common import process

async def main(shutdown):
    print(type(asyncio.get_running_loop()).__module__, flush=True)
    await shutdown.wait()
    print("draining", flush=True)
    if sys.argv[1] == "hangs":
        await asyncio.Event().wait()
    if sys.argv[1] == "fails":
        raise RuntimeError("could not drain")
    print("drained", flush=True)

process.run(main)
"""


class Service:
    def __init__(self, manner: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, manner],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def start() -> Iterator[Any]:
    services: list[Service] = []

    def start(manner: str) -> Service:
        services.append(Service(manner))
        assert services[-1].line() == "uvloop"
        return services[-1]

    yield start
    for service in services:
        service.process.kill()
        service.process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_drains(start: Any, signum: signal.Signals) -> None:
    service = start("drains")
    service.process.send_signal(signum)
    assert service.line() == "draining"
    assert service.line() == "drained"
    assert service.process.wait(10) == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once(start: Any, signum: signal.Signals) -> None:
    service = start("hangs")
    service.process.send_signal(signal.SIGTERM)
    assert service.line() == "draining"
    service.process.send_signal(signum)
    assert service.process.wait(10) == 128 + signum


def test_failure_is_raised(start: Any) -> None:
    service = start("fails")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(10) == 1
    assert "could not drain" in service.process.stderr.read()


async def test_work_is_awaited_unless_told_to_end() -> None:
    shutdown = Shutdown()
    assert await shutdown.unless_set(asyncio.sleep(0))
    with pytest.raises(ZeroDivisionError):
        await shutdown.unless_set(fail())
    endless = shutdown.unless_set(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(shutdown.set)
    assert not await endless


async def fail() -> None:
    raise ZeroDivisionError


def test_as_many_files_as_the_system_allows_may_be_open() -> None:
    program = (
        "import resource\n"
        "from selvedge_common import process\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))\n"
        "async def main(_): print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "process.run(main)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == "128\n"


_COMMAND = """
from dataclasses import dataclass
from selvedge_common import process
from selvedge_common.config.sections import Logging

@dataclass(frozen=True)
class Config:
    logging: Logging

async def serve(config, shutdown):
    pass

process.command("it", "", "", lambda _: Config(Logging("info", "json")), serve, ())
"""


def test_variable_that_is_nearly_a_setting_is_told_at_the_start() -> None:
    environ = os.environ | {"CORE_LOGING_SPEC": "debug", "CORE_LEDGER_HISTORY": "true"}
    ended = subprocess.run(
        [sys.executable, "-c", _COMMAND], env=environ, stderr=subprocess.PIPE, text=True, check=True
    )
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert (line["level"], line["event"]) == ("warning", "variable names no setting")
    assert (line["variable"], line["perhaps"]) == ("CORE_LOGING_SPEC", "CORE_LOGGING_SPEC")
