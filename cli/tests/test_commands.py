"""The commands as one types them: help, wrong use, and sentences instead of tracebacks."""

import json
import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from cli.tests.fake_services import make_pair
from click.testing import CliRunner

from selvedge_cli import ENVIRONMENT
from selvedge_cli.addresses import Addresses, load_addresses, save_addresses
from selvedge_cli.errors import CommandError
from selvedge_cli.invoke import parse_transient
from selvedge_cli.main import COMMANDS, cli

SELVEDGE = Path(sys.executable).with_name("selvedge")


def run(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SELVEDGE, *words, "--home", str(home)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_each_command_and_gives_an_example(command: str) -> None:
    overview = CliRunner().invoke(cli, ["--help"])
    assert f"  {command} " in overview.output
    words = [command, "issue", "--help"] if command == "ca" else [command, "--help"]
    shown = CliRunner().invoke(cli, words)
    assert shown.exit_code == 0, shown.output
    assert "Example" in shown.output


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    done = run("query", "asset", "read", "--ca", "localhost:1", home=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("selvedge: no ca answers at localhost:1: start one with")
    assert len(done.stderr.splitlines()) == 1


def test_grpcs_own_lines_do_not_reach_the_terminal(tmp_path: Path) -> None:
    server = make_pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, pem in (("crt", server.certificate_pem), ("key", server.key_pem)):
        (tmp_path / name).write_bytes(pem)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    user = make_pair("alice")
    material = {
        "msp/signcerts/cert.pem": user.certificate_pem,
        "msp/keystore/key.pem": user.key_pem,
        "msp/cacerts/ca.pem": user.certificate_pem,
        "msp/tlscacerts/tlsca.pem": user.certificate_pem,
        "tls/ca.crt": user.certificate_pem,
        "tls/client.crt": user.certificate_pem,
        "tls/client.key": user.key_pem,
    }
    for name, pem in material.items():
        file = tmp_path / "crypto" / "users" / "alice" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pem)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        refused = pool.submit(_refuse, context, listener)
        address = f"localhost:{listener.getsockname()[1]}"
        words = ["query", "asset", "read", "--user", "alice", "--ca", "localhost:1"]
        done = run(*words, "--peer", address, home=tmp_path)
        listener.shutdown(socket.SHUT_RDWR)
        assert refused.result(30) > 0
    assert done.returncode == 1
    assert done.stderr.startswith(f"selvedge: the peer at {address} has its certificate from an")
    assert len(done.stderr.splitlines()) == 1


def _refuse(context: ssl.SSLContext, listener: socket.socket) -> int:
    """Answer with a certificate that is not trusted, until the listener is shut; how often."""
    times = 0
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return times
        with connection, suppress(OSError):
            context.wrap_socket(connection, server_side=True).close()
        times += 1


def test_status_of_nothing_is_still_json(tmp_path: Path) -> None:
    done = run("status", "--json", "--ca", "localhost:1", home=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["up"] is False


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["invoke", "asset", "create", "--timeout", "soon"], "'soon' is no time: write it as in"),
        (["invoke", "asset", "create", "--timeout", "-1s"], "'-1s' is no time"),
        (["invoke", "asset"], "Missing argument 'FUNCTION'"),
        (["invoke", "asset", "create", "--transient", "x"], "'x' has no '=': give KEY=VALUE"),
        (["query", "mycc:1.0", "get"], "called by its name without version: mycc, not mycc:1.0"),
        (
            ["invoke", "mycc:1.0", "set"],
            "called by its name without version: mycc, not mycc:1.0",
        ),
        (["doctor", "--chaincode", "mycc:1.0"], "is called by its name without version: mycc"),
        (["query", "Bad Name", "get"], "'Bad Name' is no chaincode's name"),
        (["query", "", "get"], "'' is no chaincode's name"),
        (["invoke", "Bad Name", "set"], "'Bad Name' is no chaincode's name"),
        (
            ["invoke", "qscc", "GetChainInfo", "mychannel"],
            "ask it with `selvedge query qscc FUNCTION ARGUMENT...`",
        ),
        (["events", "--from", "yesterday"], "'yesterday' is no block: give its number"),
        (["events", "--chat", "--until", "1"], "--chat is live: it has no --until or --resume"),
        (
            ["events", "--chat", "--type", "rejection", "--creator", "Org1MSP"],
            "--chat knows no --creator",
        ),
        (
            ["events", "--chat", "--type", "rejection", "--chaincode", "asset"],
            "--chat tells of all rejections: leave out --chaincode and --name, or --chat",
        ),
        (
            ["events", "--chat", "--type", "rejection", "--name", "Asset*"],
            "--chat tells of all rejections: leave out --chaincode and --name, or --chat",
        ),
        (
            ["events", "--chat", "--peer", "localhost:7051"],
            "--chat listens to the event hub: give --events instead of --peer",
        ),
        (["events", "--name", "Asset*"], "--type block is told of whole blocks: choose among"),
        (["events", "--chat", "--type", "chaincode"], "give --chaincode NAME"),
        (["query", "asset", "read", "--ca", "nowhere"], "'nowhere' is no address"),
        (["query", "asset", "read", "--peer", "localhost"], "'localhost' is no address: give host"),
        (["query", "asset", "read", "--peer", "localhost:172300"], "'localhost:172300' is no"),
        (["query", "asset", "read", "--peer", ":7051"], "':7051' is no address"),
        (["up", "--peer", "localhost:7051"], "No such option '--peer'"),
        (["events", "--from", "5", "--until", "2"], "--from 5 is after --until 2"),
        (["status", "--txid", "deadbeef"], "'deadbeef' is no transaction id: that has 64"),
    ],
)
def test_wrong_use_is_said(words: list[str], sentence: str, tmp_path: Path) -> None:
    done = run(*words, home=tmp_path)
    assert done.returncode in (1, 2)
    assert sentence in done.stderr


def test_parts_of_the_peer_may_be_asked(tmp_path: Path) -> None:
    done = run("query", "qscc", "GetChainInfo", "mychannel", "--ca", "localhost:1", home=tmp_path)
    assert done.stderr.startswith("selvedge: no ca answers at localhost:1")


def test_failure_is_told_in_json_too(tmp_path: Path) -> None:
    nobody = ["--ca", "localhost:1", "--json"]
    done = run("invoke", "asset", "create", *nobody, home=tmp_path)
    record = json.loads(done.stdout)
    assert (done.returncode, record["outcome"]) == (1, "not submitted")
    assert done.stderr == f"selvedge: {record['error']}\n"
    assert record["error"].endswith("; nothing was submitted")

    done = run("events", *nobody, home=tmp_path)
    assert json.loads(done.stdout).keys() == {"error"}

    done = run("events", *nobody, "--from", "yesterday", home=tmp_path)
    assert done.returncode == 2
    assert "'yesterday' is no block" in json.loads(done.stdout)["error"]


def test_transient_values_may_hold_equal_signs() -> None:
    assert parse_transient(["key=a=b", "empty="]) == {"key": b"a=b", "empty": b""}


def test_addresses_come_from_the_home_and_are_overridden_by_variables(tmp_path: Path) -> None:
    assert load_addresses(tmp_path, {}) == Addresses()
    moved = Addresses().shifted(10_000)
    save_addresses(tmp_path, moved)
    assert load_addresses(tmp_path, {}).peer == "localhost:17051"
    overridden = load_addresses(tmp_path, {"SELVEDGE_PEER": "peer0:7051"})
    assert (overridden.peer, overridden.orderer) == ("peer0:7051", "localhost:17050")


def test_address_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "addresses.json").write_text('{"colour": "red"}')
    with pytest.raises(CommandError, match=r"addresses\.json cannot be read .*: delete it"):
        load_addresses(tmp_path, {})
