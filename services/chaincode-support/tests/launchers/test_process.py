"""Real child processes: what they are told, how they end, and how they are ended."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from launching import PAUSES, Launching, StartLaunching
from prometheus_client import REGISTRY

from chaincode_support.chaincode.errors import LaunchTimeout, TooManyWaiting
from chaincode_support.launchers.errors import LaunchFailed
from chaincode_support.launchers.supervisor import Pauses

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]

COUNTER = """
import os
from selvedge_shim import Chaincode, Response, Stub, start, success

class Counter(Chaincode):
    async def invoke(self, stub: Stub) -> Response:
        if stub.args[:1] == [b"pid"]:
            return success(str(os.getpid()))
        count = int(await stub.get_state("count") or b"0") + 1
        await stub.put_state("count", str(count).encode())
        return success(str(count))

start(Counter())
"""


def package(**more: Any) -> dict[str, Any]:
    command = [sys.executable, "chaincode.py"]
    return {"type": "process", "label": "mycc_1.5", "command": command, **more}


async def pid_of(launching: Launching, txid: str = "pid") -> int:
    return int((await launching.peer.execute("mycc", txid, b"pid")).response.payload)


def alive(pid: int) -> bool:
    """Whether it runs: one that has ended may not have been collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_first_calls_start_it_once_and_all_of_them_get_their_answer(
    start: StartLaunching,
) -> None:
    launching = await start()
    await launching.drop("mycc", package(), chaincode=COUNTER)
    assert launching.state("mycc") == "to be launched when it is first called"
    answers = await asyncio.gather(
        *(launching.peer.execute("mycc", f"t{number}", b"pid") for number in range(5))
    )
    assert len({answer.response.payload for answer in answers}) == 1
    assert answers[0].version == "1.5"
    pid = await pid_of(launching)
    assert launching.state("mycc") == f"running as process {pid}"
    assert REGISTRY.get_sample_value(
        "chaincode_launch_duration_count", {"chaincode": "mycc", "success": "true"}
    )


async def test_one_that_ends_is_started_again(
    start: StartLaunching, eventually: Eventually
) -> None:
    launching = await start()
    await launching.drop("mycc", package(), chaincode=COUNTER)
    first = await pid_of(launching)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: launching.peer.registry.next("mycc") is None)
    assert await pid_of(launching, "again") != first
    assert REGISTRY.get_sample_value("chaincode_restarts_total", {"chaincode": "mycc"})


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (
            "import no_such_module",
            r"chaincode mycc ended with status 1; the last it printed: .*\| ModuleNotFoundError: "
            r"No module named 'no_such_module'; correct it, and call it again \(package mycc_1\.5:",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGABRT)",
            "chaincode mycc was ended by SIGABRT; it printed nothing",
        ),
        ("", "chaincode mycc ended with status 0; it printed nothing"),
    ],
)
async def test_one_that_ends_before_it_registers_fails_who_waits_at_once(
    start: StartLaunching, program: str, sentence: str
) -> None:
    launching = await start(startup_timeout=3600.0)
    await launching.drop("mycc", package(), chaincode=program)
    with pytest.raises(LaunchFailed, match=sentence):
        await launching.peer.execute("mycc")
    # Also once it is known to fail: whoever comes later hears of an attempt of its own.
    with pytest.raises(LaunchFailed, match=sentence):
        await launching.peer.execute("mycc")


async def test_between_attempts_it_waits_longer_and_longer_and_says_so(
    start: StartLaunching, eventually: Eventually
) -> None:
    launching = await start(pauses=Pauses(first=3600.0, longest=7200.0))
    await launching.drop("mycc", package(), chaincode="print('no'); raise SystemExit(3)")
    with pytest.raises(LaunchFailed):
        await launching.peer.execute("mycc")
    await eventually(lambda: launching.state("mycc").startswith("waiting"))
    told = launching.state("mycc")
    assert told.endswith(
        " s to start it again, since it ended with status 3; the last it printed: no"
    )
    assert 2700 <= float(told.split()[1]) <= 4500


async def test_one_that_was_mended_is_started_as_soon_as_it_is_called(
    start: StartLaunching,
) -> None:
    launching = await start(pauses=Pauses(first=0.01, longest=3600.0))
    place = await launching.drop("mycc", package(), chaincode="1/0")
    for _ in range(3):
        with pytest.raises(LaunchFailed, match="ZeroDivisionError"):
            await launching.peer.execute("mycc")
    (place / "chaincode.py").write_text(COUNTER)
    assert await pid_of(launching)


async def test_one_that_does_not_register_is_given_up_and_goes_on(
    start: StartLaunching,
) -> None:
    launching = await start(startup_timeout=0.5)
    program = "import time; print('warming up', flush=True); time.sleep(3600)"
    await launching.drop("mycc", package(), chaincode=program)
    with pytest.raises(
        LaunchTimeout,
        match=r"did not register within chaincode\.startuptimeout \(0\.5 s\); "
        r"(starting; it printed nothing|running as process \d+; the last it printed: warming up)"
        r" \(package mycc_1\.5:[0-9a-f]{8}\)$",
    ):
        await launching.peer.execute("mycc")
    with pytest.raises(LaunchTimeout, match=r"running as process \d+"):
        await launching.peer.execute("mycc")


async def test_those_that_wait_are_bounded(start: StartLaunching) -> None:
    launching = await start(max_waiting=1, startup_timeout=3600.0)
    await launching.drop("mycc", package(), chaincode="import time; time.sleep(3600)")
    waiting = asyncio.create_task(launching.peer.execute("mycc", "t1"))
    await asyncio.sleep(0)
    with pytest.raises(TooManyWaiting, match=r"RESOURCE_EXHAUSTED: 1 proposals already wait"):
        await launching.peer.execute("mycc", "t2")
    waiting.cancel()


ENVIRONMENT = """
import json, os, sys
with open("told.json.new", "w") as file:
    json.dump({"environment": dict(os.environ), "words": sys.argv, "folder": os.getcwd(),
               "input": sys.stdin.read()}, file)
os.rename("told.json.new", "told.json")
"""


async def told(launching: Launching, place: Path) -> Any:
    with pytest.raises(LaunchFailed):
        await launching.peer.execute("mycc")
    return json.loads((place / "told.json").read_text())


async def test_it_is_told_what_fabric_tells_and_nothing_else_of_the_peer(
    start: StartLaunching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORE_PEER_TLS_ENABLED", "true")
    monkeypatch.setenv("CORE_CHAINCODE_MODE", "dev")
    monkeypatch.setenv("SECRET", "token")
    monkeypatch.setenv("LANG", "C.UTF-8")
    launching = await start(log_format="%{message}")
    place = await launching.drop(
        "mycc",
        package(
            command=[
                sys.executable,
                "../chaincode.py",
                "-peer.address",
                "$CORE_PEER_ADDRESS",
                "$1",
                "$$HOME",
            ],
            directory="work",
            environment={"GREETING": "hello", "CORE_CHAINCODE_LOGGING_SHIM": "debug"},
        ),
        chaincode=ENVIRONMENT,
    )
    work = place / "work"
    work.mkdir()
    heard = await told(launching, work)
    environment = heard["environment"]
    # Python itself may add this one.
    environment.pop("LC_CTYPE", None)
    assert environment == {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "LANG": "C.UTF-8",
        "CORE_CHAINCODE_ID_NAME": "mycc:1.5",
        "CORE_PEER_ADDRESS": launching.peer.address,
        "CORE_PEER_LOCALMSPID": "Org1MSP",
        "CORE_PEER_TLS_ENABLED": "false",
        "CORE_CHAINCODE_LOGGING_LEVEL": "info",
        "CORE_CHAINCODE_LOGGING_SHIM": "debug",
        "CORE_CHAINCODE_LOGGING_FORMAT": "%{message}",
        "GREETING": "hello",
    }
    assert heard["words"][1:] == ["-peer.address", launching.peer.address, "$1", "$HOME"]
    assert (heard["folder"], heard["input"]) == (str(work), "")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"command": ["no-such-program"]},
            r"^chaincode mycc was not started: there is no program no-such-program that may be "
            r"run on the PATH that .*: give the program's path; correct .*/mycc/metadata\.json$",
        ),
        ({"command": ["./metadata.json"]}, "there is no program .*/mycc/metadata.json that may be"),
        ({"directory": "elsewhere"}, "its directory .*/mycc/elsewhere is not there"),
    ],
)
async def test_one_that_cannot_be_started_says_why(
    start: StartLaunching, more: dict[str, Any], sentence: str
) -> None:
    launching = await start()
    await launching.drop("mycc", package(**more))
    with pytest.raises(LaunchFailed, match=sentence):
        await launching.peer.execute("mycc")


async def test_what_the_peer_s_path_is_the_log_alone_tells(
    start: StartLaunching, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chaincode")
    launching = await start()
    path = {"PATH": "/nowhere:/neither"}
    await launching.drop("mycc", package(command=["mycc"], environment=path))
    with pytest.raises(LaunchFailed) as told:
        await launching.peer.execute("mycc")
    assert "/nowhere" not in str(told.value)
    assert "/nowhere:/neither" in caplog.text


async def test_what_cannot_be_executed_is_said_without_its_arguments(
    start: StartLaunching,
) -> None:
    launching = await start()
    # One word of what an operating system takes at most 128 KB of.
    command, environment = [sys.executable, 3 * "$TOKEN"], {"TOKEN": 10_000 * "s3cret"}
    await launching.drop("mycc", package(command=command, environment=environment))
    with pytest.raises(LaunchFailed) as told:
        await launching.peer.execute("mycc")
    assert f"its program {sys.executable} could not be run: Argument list too" in str(told.value)
    assert "s3cret" not in str(told.value)


async def test_a_failed_launch_is_told_once_and_listed_as_the_last_error(
    start: StartLaunching, eventually: Eventually
) -> None:
    launching = await start(startup_timeout=3600.0, pauses=Pauses(first=3600.0, longest=7200.0))
    await launching.drop("mycc", package(directory="elsewhere"))
    (before,) = launching.launchers.describe(())
    assert (before.last_error, before.HasField("last_error_at")) == ("", False)
    with pytest.raises(LaunchFailed) as told:
        await launching.peer.execute("mycc")
    await eventually(lambda: launching.state("mycc").startswith("waiting"))
    (described,) = launching.launchers.describe(launching.peer.support.describe())
    assert described.last_error == str(told.value)
    assert described.HasField("last_error_at")
    cause = described.last_error.removeprefix("chaincode mycc ")
    assert described.launcher_state.endswith(f" s to start it again, since it {cause}")
    assert cause.startswith("was not started: its directory ")


STUBBORN = """
import os, signal, subprocess, sys, time
if "--child" not in sys.argv:
    child = subprocess.Popen([sys.executable, __file__, "--child"])
    print(os.getpid(), child.pid, flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(f"ignoring-{os.getpid()}", "w").close()
time.sleep(3600)
"""


async def test_the_whole_group_is_killed_when_it_does_not_end_within_the_grace(
    start: StartLaunching, eventually: Eventually
) -> None:
    launching = await start(startup_timeout=0.01, grace=0.05)
    place = await launching.drop("mycc", package(), chaincode=STUBBORN)
    with pytest.raises(LaunchTimeout):
        await launching.peer.execute("mycc")
    await eventually(lambda: len(list(place.glob("ignoring-*"))) == 2)
    pids = [int(file.name.rpartition("-")[2]) for file in place.glob("ignoring-*")]
    await launching.launchers.stop()
    await eventually(lambda: not any(map(alive, pids)))


GROUP = """
import os, signal, subprocess, sys, time
if "--child" not in sys.argv:
    # As npm does: the leader goes at once, and what it started ends in order.
    child = subprocess.Popen([sys.executable, __file__, "--child"])
    open(f"pid-{child.pid}", "w").close()
    time.sleep(3600)

def end(*_):
    time.sleep(0.2)
    open("ended in order", "w").close()
    sys.exit(0)

signal.signal(signal.SIGTERM, end)
open("ready", "w").close()
time.sleep(3600)
"""


async def test_what_the_program_started_may_end_in_order_too(
    start: StartLaunching, eventually: Eventually
) -> None:
    launching = await start(startup_timeout=0.01)
    place = await launching.drop("mycc", package(), chaincode=GROUP)
    with pytest.raises(LaunchTimeout):
        await launching.peer.execute("mycc")
    await eventually((place / "ready").exists)
    await launching.launchers.stop()
    assert (place / "ended in order").exists()
    (child,) = place.glob("pid-*")
    await eventually(lambda: not alive(int(child.name.rpartition("-")[2])))


async def test_what_a_program_left_behind_does_not_outlive_it(
    start: StartLaunching, eventually: Eventually
) -> None:
    launching = await start()
    program = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
sys.exit(str(child.pid))
"""
    await launching.drop("mycc", package(), chaincode=program)
    with pytest.raises(
        LaunchFailed, match=r"ended with status 1; the last it printed: \d+"
    ) as told:
        await launching.peer.execute("mycc")
    child = int(str(told.value).partition("printed: ")[2].partition(";")[0])
    await eventually(lambda: not alive(child))


async def test_running_transactions_finish_when_its_package_is_taken_away(
    start: StartLaunching, eventually: Eventually
) -> None:
    launching = await start()
    program = COUNTER.replace(
        "count = int(",
        "open('asked', 'w').close()\n        "
        "while not os.path.exists('go on'): await asyncio.sleep(0.01)\n        count = int(",
    ).replace("import os", "import asyncio, os")
    place = await launching.drop("mycc", package(), chaincode=program)
    pid = await pid_of(launching)
    running = asyncio.create_task(launching.peer.execute("mycc", "t1"))
    await eventually((place / "asked").exists)
    (place / "metadata.json").rename(place.parent / "elsewhere")
    place.rename(place.parent / ".hidden")
    leaving = await launching.launchers.look()
    assert len(leaving) == 1
    (place.parent / ".hidden" / "go on").touch()
    assert (await running).response.payload == b"1"
    await asyncio.wait(leaving)
    assert not alive(pid)


async def test_a_changed_package_takes_the_place_of_the_one_before(
    start: StartLaunching, eventually: Eventually
) -> None:
    launching = await start(pauses=PAUSES)
    await launching.drop("mycc", package(), chaincode=COUNTER)
    first = await pid_of(launching)
    await launching.drop("mycc", package(version="2.0"))
    await eventually(lambda: not alive(first))
    execution = await launching.peer.execute("mycc", "t2", b"pid")
    assert execution.version == "2.0"


async def test_who_waits_hears_that_the_package_was_taken_away(
    start: StartLaunching, eventually: Eventually
) -> None:
    launching = await start(startup_timeout=3600.0)
    place = await launching.drop("mycc", package(), chaincode="import time; time.sleep(3600)")
    waiting = asyncio.create_task(launching.peer.execute("mycc"))
    await eventually(lambda: launching.state("mycc").startswith("running"))
    place.rename(place.parent / ".hidden")
    await launching.launchers.look()
    with pytest.raises(LaunchFailed, match=r"mycc is launched no more: its package mycc_1\.5:"):
        await waiting


async def test_who_waits_gets_the_answer_of_the_package_that_takes_its_place(
    start: StartLaunching, eventually: Eventually
) -> None:
    launching = await start(startup_timeout=3600.0)
    place = await launching.drop("mycc", package(), chaincode="import time; time.sleep(3600)")
    waiting = asyncio.create_task(launching.peer.execute("mycc", "t1", b"pid"))
    await eventually(lambda: launching.state("mycc").startswith("running"))
    (place / "counter.py").write_text(COUNTER)
    await launching.drop("mycc", package(command=[sys.executable, "counter.py"], version="2"))
    assert (await waiting).version == "2"
