"""The console command as it is run: in processes of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from services.ca.tests.running import eventually, free_port

from selvedge_common.enrolment import Enrolment, enrol_user


def environment(home: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "CORE_CA_FILESYSTEMPATH": str(home / "ca"),
        "CORE_ENROLMENT_FOLDER": str(home / "enrol"),
        **more,
    }


def command(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "certificate_authority", *arguments],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("serve",), ("token",), ("init",)])
def test_help_has_an_example(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    shown = command(tmp_path, *arguments, "--help")
    assert shown.returncode == 0
    assert ("example:\n  " in shown.stdout) == bool(arguments)


def test_init_makes_roots_and_files_once(tmp_path: Path) -> None:
    first, second = command(tmp_path, "init"), command(tmp_path, "init")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == second.stdout
    assert (tmp_path / "ca" / "tls" / "ca.crt").exists()
    assert (tmp_path / "enrol" / "event-hub" / "enrolment.json").exists()


def test_lost_roots_are_not_replaced_by_new_ones(tmp_path: Path) -> None:
    assert command(tmp_path, "init").returncode == 0
    (tmp_path / "ca" / "roots").rename(tmp_path / "backup")
    for run in ("init", "serve"):
        failed = command(tmp_path, run)
        assert failed.returncode == 1
        assert f"the roots {tmp_path}/ca/roots are gone, but" in failed.stderr.splitlines()[-1]
    assert not (tmp_path / "ca" / "roots").exists()
    (tmp_path / "backup").rename(tmp_path / "ca" / "roots")
    assert command(tmp_path, "init").returncode == 0


def test_token_prints_an_enrolment_and_nothing_secret_else(tmp_path: Path) -> None:
    command(tmp_path, "init")
    arguments = ["token", "--name=alice", "--profile=user", "--profile=tls-client"]
    minted = command(tmp_path, *arguments, CORE_LOGGING_SPEC="debug")
    enrolment = Enrolment.parse(minted.stdout.encode(), "output")
    assert enrolment.tokens.keys() == {"user", "tls-client"}
    assert not any(token in minted.stderr for token in enrolment.tokens.values())


def test_a_token_for_a_services_host_is_not_made(tmp_path: Path) -> None:
    command(tmp_path, "init")
    arguments = ["token", "--name=mycc", "--profile=chaincode", "--host=localhost"]
    assert command(tmp_path, *arguments).returncode == 0
    failed = command(tmp_path, *arguments, "--host=peer0", CORE_CA_NAME="peer0")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "peer0 is a host of one of the services" in failed.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["token", "--name=alice", "--profile=user"], "there are no roots in"),
        (["token", "--name=../a", "--profile=user"], "is no name for profile user"),
        (["token", "--name=a", "--profile=user", "--lifetime=soon"], "must be a duration"),
        (["token", "--name=a", "--profile=user", "--host=a"], "--host is for profile chaincode"),
        (
            ["token", "--name=a", "--profile=chaincode", "--profile=tls-server", "--host=a"],
            "--host is for profile chaincode",
        ),
        (
            ["token", "--name=a", "--profile=chaincode", "--host=a:9999"],
            "'a:9999' is neither a host name nor an IP address",
        ),
        (["init", "--config=missing.yaml"], "missing.yaml"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path: Path, arguments: list[str], words: str) -> None:
    failed = command(tmp_path, *arguments)
    assert failed.returncode != 0
    assert words in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr


def test_a_wrong_member_is_named(tmp_path: Path) -> None:
    overlay = tmp_path / "ca.yaml"
    member = {"name": "a", "folder": "a", "profiles": ["root"], "extraSans": []}
    overlay.write_text(json.dumps({"enrolment": {"members": [member]}}))
    failed = command(tmp_path, "init", f"--config={overlay}")
    assert failed.returncode == 1
    assert "there is no profile 'root'" in failed.stderr


@pytest.mark.parametrize("key", ["CORE_CA_LISTENADDRESS", "CORE_OPERATIONS_LISTENADDRESS"])
def test_a_taken_address_is_named(tmp_path: Path, key: str) -> None:
    free = {"CORE_CA_LISTENADDRESS": "127.0.0.1:0", "CORE_OPERATIONS_LISTENADDRESS": "127.0.0.1:0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = command(tmp_path, "serve", **(free | {key: address}))
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("certificate-authority: ")
    assert address in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr


async def test_serve_answers_until_sigterm(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "certificate_authority", "serve"),
        env=environment(
            tmp_path,
            CORE_CA_ADDRESS=f"localhost:{ports[0]}",
            CORE_CA_LISTENADDRESS=f"127.0.0.1:{ports[0]}",
            CORE_OPERATIONS_LISTENADDRESS=f"127.0.0.1:{ports[1]}",
        ),
        stderr=subprocess.PIPE,
    )

    def get(path: str) -> str:
        context = ssl.create_default_context(cafile=tmp_path / "ca" / "tls" / "ca.crt")
        url = f"https://localhost:{ports[1]}{path}"
        with urllib.request.urlopen(url, context=context, timeout=5) as answer:
            return str(answer.read(), "utf-8")

    async def healthy() -> bool:
        assert server.returncode is None
        try:
            return "OK" in await asyncio.to_thread(get, "/healthz")
        except OSError:
            return False

    try:
        await eventually(healthy)
        arguments = ["token", "--name=alice", "--profile=user", "--profile=tls-client"]
        minted = await asyncio.to_thread(
            command, tmp_path, *arguments, CORE_CA_ADDRESS=f"localhost:{ports[0]}"
        )
        enrolment = Enrolment.parse(minted.stdout.encode(), "output")
        await enrol_user(tmp_path / "alice", enrolment)
        metrics = await asyncio.to_thread(get, "/metrics")
        assert 'ca_certificates_issued_total{profile="user"} 1.0' in metrics
    finally:
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            log = (await server.communicate())[1].decode()
    assert server.returncode == 0
    serving = next(json.loads(line) for line in log.splitlines() if '"serving"' in line)
    assert serving["address"] == f"127.0.0.1:{ports[0]}"
    assert not any(token in log for token in enrolment.tokens.values())
    assert "PRIVATE KEY" not in log
