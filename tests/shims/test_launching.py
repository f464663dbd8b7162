"""Chaincode that the peer launches by its package: it starts a process, or dials a service."""

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.clients import Client
from tests.e2e.stack import Stack, eventually
from tests.shims.chaincodes import (
    CHAINCODES,
    GO_CONTRACT,
    GO_V2,
    JAVA,
    NODE_25,
    Chaincode,
    Command,
    fabric_chaincode_node,
)
from tests.shims.conftest import require_all
from tests.shims.contract import Contract
from tests.shims.running import Running

pytestmark = pytest.mark.timeout(300)  # the first test starts everything


@contextlib.contextmanager
def package(
    stack: Stack, name: str, metadata: Mapping[str, Any], connection: Mapping[str, Any] | None
) -> Iterator[None]:
    """A package in the peer's folder, for as long as it takes."""
    place = stack.home / "chaincode-support" / "chaincodes" / name
    draft = stack.folder / name
    draft.mkdir()
    (draft / "metadata.json").write_text(json.dumps({"label": name, **metadata}))
    if connection is not None:
        (draft / "connection.json").write_text(json.dumps(connection))
    place.parent.mkdir(exist_ok=True)
    draft.rename(place)  # the peer sees all of it at once
    try:
        yield
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("chaincode", CHAINCODES, ids=str)
def test_the_peer_starts_a_chaincode_and_starts_it_again(
    stack: Stack, client: Client, chaincode: Chaincode, unique: str
) -> None:
    require_all(chaincode)
    name = f"{chaincode.name}-started"
    stack.selvedge("ca", "issue", "--chaincode", name)
    command = chaincode.command("$CORE_CHAINCODE_ID_NAME")
    metadata = {
        "type": "process",
        "command": [str(word) for word in command.words],
        "directory": str(command.folder),
        "environment": dict(command.environment),
        "tls": str(stack.home / "crypto" / "chaincodes" / name),
    }
    contract = Contract(client, name)
    with package(stack, name, metadata, None):
        eventually(contract.answers, f"{name} answers")
        if "PeerMspid" not in chaincode.lacks:
            assert contract.text("PeerMspid") == "Org1MSP"
        contract.submit("Put", unique, "kept")
        contract.refusal("Panic", "on purpose")
        eventually(contract.answers, f"{name} answers again")
        assert contract.text("Get", unique) == "kept"


@pytest.mark.parametrize(
    ("chaincode", "security"),
    [
        (NODE_25, "plaintext"),
        (NODE_25, "mutual TLS"),
        (GO_V2, "plaintext"),
        (GO_V2, "mutual TLS"),
        (GO_CONTRACT, "mutual TLS"),
        (JAVA, "TLS"),  # its shim's own program asks for no client certificate
    ],
    ids=str,
)
def test_the_peer_dials_a_chaincode_and_dials_it_again(
    stack: Stack,
    client: Client,
    contracts: dict[str, Running],
    chaincode: Chaincode,
    security: str,
    unique: str,
    tmp_path: Path,
) -> None:
    require_all(chaincode)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    name = f"{chaincode.name}-{security.replace(' ', '-')}"
    connection = {
        "address": f"localhost:{port}",
        "dial_timeout": "10s",
        "tls_required": security != "plaintext",
        "client_auth_required": security == "mutual TLS",
    }
    issued = stack.json("ca", "issue", "--chaincode", name, "--host", "localhost")
    command = serving(chaincode, issued, f"127.0.0.1:{port}", security)
    service = Running(client, chaincode, name, command, tmp_path / "log")
    with package(stack, name, {"type": "ccaas"}, connection):
        try:
            service.start()
            service.submit("PutSeries", unique, "150")
            assert len(service.json("List", unique, f"{unique}~")) == 150
            others = json.dumps(["Arguments", "a", "b"])
            reply = service.json("Call", contracts["python"].name, "", others)
            assert json.loads(reply["payload"]) == ["Arguments", "a", "b"]
            service.kill()
            service.start()
            assert service.text("Get", f"{unique}-149") == "149"
        finally:
            service.stop()


def serving(
    chaincode: Chaincode, issued: Mapping[str, Any], address: str, security: str
) -> Command:
    """The command of a chaincode that waits for its peer.

    Args:
        issued: what `selvedge ca issue` reported.
    """
    environment: dict[str, str] = issued["environment"]
    registered = environment["CORE_CHAINCODE_ID_NAME"]
    if chaincode is NODE_25:
        material, tls = Path(issued["folder"]), []
        if security != "plaintext":
            tls += ["--chaincode-tls-cert-file", str(material / "client.crt")]
            tls += ["--chaincode-tls-key-file", str(material / "client.key")]
        if security == "mutual TLS":
            tls += ["--chaincode-tls-client-cacert-file", str(material / "ca.crt")]
        identity = ("--chaincode-address", address, "--chaincode-id", registered)
        return fabric_chaincode_node("server", *identity, *tls)
    return chaincode.command(registered).within(
        environment
        | {
            "CHAINCODE_SERVER_ADDRESS": address,
            "CORE_PEER_TLS_ENABLED": str(security != "plaintext").lower(),
        }
    )
