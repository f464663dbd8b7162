"""`selvedge up`: the real services as processes, from nothing to a committed transaction."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from selvedge_cli import ENVIRONMENT
from selvedge_cli.addresses import Addresses, port_of
from selvedge_cli.errors import CommandError
from selvedge_cli.local.claim import check_ports, claimed
from selvedge_cli.local.services import services

SELVEDGE = Path(sys.executable).with_name("selvedge")


def free_offset() -> int:
    """An offset at which every port is free."""
    for offset in range(10_000, 50_000, 97):
        try:
            check_ports(services(Path("/"), Addresses().shifted(offset), "mychannel"))
        except CommandError:
            continue
        return offset
    raise AssertionError("no free ports")


@dataclass
class Running:
    """One `selvedge up --demo --json` and what it printed."""

    home: Path
    process: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)

    def read(self, kind: str) -> dict[str, Any]:
        """Read on until a line of that type."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))
            if self.lines[-1]["type"] == kind:
                return self.lines[-1]
        raise AssertionError(f"ended without {kind}: {self.errors()}")

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SELVEDGE, *words, "--home", str(self.home)],
            capture_output=True,
            text=True,
            timeout=30,
        )

    def pid_of(self, module: str) -> int | None:
        for pid in map(int, children(self.process.pid)):
            # It may end at any moment.
            with suppress(FileNotFoundError, ProcessLookupError):
                if module in Path(f"/proc/{pid}/cmdline").read_text():
                    return pid
        return None


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


# As in a shell where a chaincode was started before, or Fabric's `peer` is used.
EXPORTED = {
    "CORE_CHAINCODE_ID_NAME": "mycc:1.0",
    "CORE_PEER_ADDRESS": "peer0.example.com:7051",
    "CORE_PEER_LOCALMSPID": "Org2MSP",
    "CORE_PEER_TLS_ENABLED": "false",
    "CORE_PEER_TLS_ROOTCERT_FILE": "/nowhere/ca.crt",
    "CORE_TLS_CLIENT_KEY_PATH": "/nowhere/client.key",
    "CORE_OPERATIONS_TLS_ENABLED": "false",
}


def start(home: Path, offset: int, **variables: str) -> Running:
    words = ["up", "--demo", "--json", "--home", str(home), "--port-offset", str(offset)]
    process = subprocess.Popen(
        [SELVEDGE, *words],
        env=ENVIRONMENT | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Running(home, process)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("home")
    started = start(home, free_offset(), CORE_LOGGING_SPEC="info:comm=warning", **EXPORTED)
    try:
        started.read("ready")
        yield started
        assert started.stop() == 0
    finally:
        started.process.kill()
        started.process.communicate()


def test_demonstration_shows_the_three_events_of_its_transaction(running: Running) -> None:
    transaction = next(line for line in running.lines if line["type"] == "transaction")
    told = {line["type"] for line in running.lines if transaction["txid"] in json.dumps(line)}
    assert told == {"transaction", "block", "chaincode", "filtered"}


def test_other_commands_find_the_services_by_the_home(running: Running) -> None:
    created = running.run("invoke", "asset-transfer", "CreateAsset", "t1", "ada", "7", "--json")
    assert created.returncode == 0, created.stderr
    answer = json.loads(created.stdout)
    assert (answer["outcome"], answer["code"]) == ("valid", "VALID")

    asset = running.run("query", "asset-transfer", "ReadAsset", "t1")
    assert asset.stdout == '{"id":"t1","owner":"ada","value":7}\n'

    looked_up = running.run("status", "--txid", answer["txid"])
    assert (
        looked_up.stdout == f"transaction {answer['txid']} is in block {answer['block']}: VALID\n"
    )

    refused = running.run("invoke", "asset-transfer", "CreateAsset", "t1", "ada", "7")
    assert refused.returncode == 1
    assert "the asset t1 exists already; nothing was submitted" in refused.stderr


def test_events_are_read_through_deliver_and_through_chat(running: Running) -> None:
    words = ["events", "--chat", "--type", "chaincode", "--chaincode", "asset-transfer"]
    live = subprocess.Popen(
        [SELVEDGE, *words, "--count", "1", "--json", "--home", str(running.home)],
        stdout=subprocess.PIPE,
        text=True,
    )
    # Whether it listens yet cannot be seen from here: go on until it has heard something.
    number = 0
    while live.poll() is None:
        number += 1
        created = running.run("invoke", "asset-transfer", "CreateAsset", f"e{number}", "bob", "1")
        assert created.returncode == 0, created.stderr
    heard = json.loads(live.communicate()[0])
    assert heard["name"] == "AssetCreated"

    words = ["events", "--type", "chaincode", "--from", "oldest", "--until", "newest", "--json"]
    told = [json.loads(line) for line in running.run(*words).stdout.splitlines()]
    assert [event["txid"] for event in told].count(heard["txid"]) == 1

    words = ["events", "--chat", "--type", "chaincode", "--chaincode", "asset-transfer"]
    words += ["--name", "Asset*", "--from", "oldest", "--count", str(len(told)), "--json"]
    again = [json.loads(line)["txid"] for line in running.run(*words).stdout.splitlines()]
    assert again == [event["txid"] for event in told]


def test_status_tells_of_every_listener(running: Running) -> None:
    done = running.run("status", "--json")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    told = {endpoint["address"] for each in report["services"] for endpoint in each["endpoints"]}
    assert told == set(running.lines[-1]["addresses"].values())
    assert report["channel"]["height"] > 1
    assert report["chaincodes"] == 1
    (channel,) = report["hub_channels"]
    assert (channel["name"], channel["connected"]) == ("mychannel", True)
    assert channel["height"] > 1
    until = [each["certificate_until"] for s in report["services"] for each in s["endpoints"]]
    assert all(until)
    for log in (running.home / "logs").glob("*.log"):
        assert "andshake failed" not in log.read_text()


def test_doctor_finds_nothing_in_the_way(running: Running) -> None:
    done = running.run("doctor", "--chaincode", "asset-transfer", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["well"]) == (0, True), report
    addresses = Addresses(**json.loads((running.home / "addresses.json").read_text()))
    dialled = f"{addresses.chaincode}, dialled with asset-transfer's certificate"
    said = [finding["what"] for finding in report["findings"] if finding["where"] == dialled]
    assert said == ["the chaincode listener accepts it"]


def test_channel_that_is_not_there_is_said(running: Running) -> None:
    for words in (["status"], ["events", "--until", "newest"]):
        done = running.run(*words, "--channel", "other")
        assert done.returncode == 1
        assert "has no channel other: give the name of one that it has with" in done.stderr
        assert "something is down" not in done.stderr


def test_variables_of_a_chaincode_do_not_reach_the_services(running: Running) -> None:
    for module in ("certificate_authority", "chaincode_support", "event_hub"):
        pid = running.pid_of(module)
        variables = dict(
            line.partition("=")[::2]
            for line in Path(f"/proc/{pid}/environ").read_text().split("\0")
        )
        assert variables["CORE_LOGGING_SPEC"] == "info:comm=warning"
        assert "GRPC_VERBOSITY" not in variables
        own = {"CORE_PEER_ADDRESS"} if module == "chaincode_support" else set()
        assert variables.keys() & EXPORTED.keys() == own
        assert variables.get("CORE_PEER_ADDRESS") != EXPORTED["CORE_PEER_ADDRESS"]


def test_settings_in_the_home_are_those_of_its_services(tmp_path: Path) -> None:
    file = tmp_path / "event-hub.yaml"
    file.touch()
    commands = {
        service.name: service.command for service in services(tmp_path, Addresses(), "mychannel")
    }
    assert commands["event-hub"][-2:] == ("--config", str(file))
    assert "--config" not in commands["chaincode-support"]


def test_second_up_on_the_home_is_refused(running: Running) -> None:
    done = running.run("up")
    assert done.returncode == 1
    assert f"already, as process {running.process.pid}: use it" in done.stderr


def test_service_that_dies_is_started_again(running: Running) -> None:
    killed = running.pid_of("event_hub")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while running.pid_of("event_hub") in (None, killed) or running.run("status").returncode != 0:
        assert time.monotonic() < deadline, "the event hub was not started again"
        time.sleep(0.05)


def test_taken_port_is_named_before_anything_is_started(tmp_path: Path) -> None:
    offset = free_offset()
    taken = Addresses().shifted(offset).orderer
    with socket.create_server(("127.0.0.1", port_of(taken))):
        started = start(tmp_path, offset)
        _, errors = started.process.communicate(timeout=30)
    assert started.process.returncode == 1
    assert f"port {port_of(taken)} (chaincode-support's ordering)" in errors
    assert not (tmp_path / "logs").exists()


def test_home_is_let_go_when_its_holder_has_gone(tmp_path: Path) -> None:
    refused = pytest.raises(CommandError, match=rf"as process {os.getpid()}")
    with claimed(tmp_path), refused, claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


def test_start_is_told_step_by_step_at_a_terminal(tmp_path: Path) -> None:
    terminal, side = pty.openpty()
    words = ["up", "--home", str(tmp_path), "--port-offset", str(free_offset())]
    process = subprocess.Popen([SELVEDGE, *words], stdout=side, stderr=subprocess.PIPE)
    os.close(side)
    try:
        shown = b""
        while b"Ctrl-C stops" not in shown:
            shown += os.read(terminal, 4096)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert process.returncode == 0, errors
    before, _, _ = shown.decode().replace("\r", "").partition("\n\nReady in ")
    steps = before.splitlines()
    names = ["ca", "chaincode-support", "event-hub"]
    assert steps[:4] == [*(f"starting {name} ..." for name in names), "ca serves"]
    assert sorted(steps[4:]) == ["chaincode-support serves", "event-hub serves"]


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_killing_up_itself_ends_its_services_and_the_next_one_keeps_the_ledger(
    tmp_path: Path,
) -> None:
    offset = free_offset()
    first = start(tmp_path, offset)
    first.read("ready")
    block = next(line for line in first.lines if line["type"] == "block")["number"]
    left = [Path(f"/proc/{pid}") for pid in children(first.process.pid)]
    assert len(left) == 4
    first.process.kill()
    first.process.communicate()
    deadline = time.monotonic() + 30
    while any(map(runs, left)):
        assert time.monotonic() < deadline, "services go on without selvedge up"
        time.sleep(0.05)
    second = start(tmp_path, offset)
    try:
        second.read("ready")
        blocks = [line["number"] for line in second.lines if line["type"] == "block"]
        assert blocks == [block + 1]
        assert second.stop() == 0
    finally:
        second.process.kill()
        second.process.communicate()


def runs(process: Path) -> bool:
    """Whether a process is there and no zombie: a container's first process may reap nobody."""
    try:
        return ") Z " not in (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
