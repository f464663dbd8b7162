"""Health, reflection and refusals, as a client that knows nothing of us sees them."""

import re
import shlex
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.e2e.clients import ChatClient, Client, interest
from tests.e2e.stack import LISTENERS, OPERATIONS, ROOT, SELVEDGE, Stack
from tests.e2e.tools import require

from selvedge_common.comm import TRANSPORTS
from selvedge_common.protoutil.proposals import sign_proposal
from selvedge_protos.common import common_pb2
from selvedge_protos.grpc.reflection.v1 import reflection_pb2 as reflection_v1_pb2
from selvedge_protos.grpc.reflection.v1 import reflection_pb2_grpc as reflection_v1_pb2_grpc
from selvedge_protos.peer import events_pb2

every_listener = pytest.mark.parametrize("listener", LISTENERS)
mutual_listeners = pytest.mark.parametrize("listener", [name for name in LISTENERS if name != "ca"])


@every_listener
def test_health_says_serving_for_the_server_and_each_service(stack: Stack, listener: str) -> None:
    address, services = LISTENERS[listener]
    with stack.channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ["", *services]:
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, service


@pytest.mark.parametrize("service", OPERATIONS)
def test_each_service_says_what_carries_its_listeners(stack: Stack, service: str) -> None:
    # The log is JSON in a container, and for people in a shell.
    [*_, ready] = (line for line in stack.log(service).splitlines() if "transport" in line)
    assert "serving" in ready
    assert {kind for kind in TRANSPORTS if kind in ready} == {stack.transport}


@every_listener
def test_reflection_lists_the_services_in_both_versions(stack: Stack, listener: str) -> None:
    address, services = LISTENERS[listener]
    expected = {
        *services,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "grpc.reflection.v1.ServerReflection",
    }
    with stack.channel(address) as channel:
        old = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5
        )
        new = reflection_v1_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_v1_pb2.ServerReflectionRequest(list_services="")]), timeout=5
        )
        answered: list[Any] = [old, new]  # the stubs know no next() of a call
        for answers in answered:
            listed = {each.name for each in next(answers).list_services_response.service}
            assert listed == expected


def tour() -> list[str]:
    """The commands of the README's tour, continuation lines joined."""
    section = (ROOT / "README.md").read_text().split("## Five minutes")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("export ")]


def test_the_tour_of_the_readme_works_as_written(stack: Stack) -> None:
    require("grpcurl")
    answers = {}
    for line in tour():
        program, *words = shlex.split(line)
        command = SELVEDGE if program == "selvedge" else program
        answers[line] = stack.run(command, *words, check="eve" not in words)
    refused = answers["selvedge invoke asset-transfer CreateAsset bicycle eve 1"]
    assert refused.returncode == 1
    assert "the asset bicycle exists already" in refused.stderr
    again = answers["selvedge events --type chaincode --until newest"].stdout.splitlines()
    assert len(again) == 1
    assert "AssetTransferred" in again[0]
    polled = [answer.stdout for line, answer in answers.items() if line.startswith("grpcurl")]
    assert len(polled) == len(LISTENERS)
    assert all("grpc.health.v1.Health" in answer or "SERVING" in answer for answer in polled)
    assert "ledger_blockchain_height" in next(
        answer.stdout for line, answer in answers.items() if line.startswith("curl")
    )


@mutual_listeners
def test_a_client_without_a_certificate_is_refused(stack: Stack, listener: str) -> None:
    address, _ = LISTENERS[listener]
    request = health_pb2.HealthCheckRequest()
    with stack.channel(address) as known, stack.channel(address, user=None) as stranger:
        health_pb2_grpc.HealthStub(known).Check(request, timeout=5)
        with pytest.raises(grpc.RpcError) as refused:
            health_pb2_grpc.HealthStub(stranger).Check(request, timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_tampered_proposal_is_refused_with_a_sentence(stack: Stack) -> None:
    with Client(stack) as client:
        proposal, _ = client.propose("asset-transfer", "ListAssets", "", "")
        signed = sign_proposal(proposal, client.signer)
        signed.signature = client.signer.sign(b"something else")
        try:
            answer = client.endorse_signed(signed)
            status, sentence = answer.response.status, answer.response.message
        except grpc.RpcError as error:
            status, sentence = 500, str(error.details())
    assert status >= 400
    assert "signature" in sentence


def test_a_tampered_registration_is_refused_and_others_go_on(stack: Stack, unique: str) -> None:
    blocks = [interest(events_pb2.FILTEREDBLOCK)]
    with ChatClient(stack, blocks) as honest, ChatClient(stack, blocks, reading=False) as forger:
        forger.send(events_pb2.Event(register=events_pb2.Register(events=blocks)), tamper=True)
        forger.read_to_end()
        assert forger.status() is not grpc.StatusCode.OK
        assert "signature" in forger.details()
        with Client(stack) as client:
            txid = client.submit("asset-transfer", "CreateAsset", unique, "ada", "1")
        seen = honest.next().filtered_block
    assert txid in {entry.txid for entry in seen.filtered_transactions}


def test_a_block_event_holds_what_fabrics_event_clients_decode(stack: Stack, unique: str) -> None:
    with ChatClient(stack, [interest(events_pb2.BLOCK)]) as consumer, Client(stack) as client:
        client.submit("asset-transfer", "CreateAsset", unique, "ada", "1")
        block = consumer.next().block
    assert block.header.data_hash
    signatures, last_config, codes, *_ = block.metadata.metadata
    assert common_pb2.Metadata.FromString(signatures).signatures
    assert common_pb2.Metadata.FromString(last_config).signatures
    assert codes == bytes(len(block.data.data))


def test_half_closing_a_chat_ends_it_ok(stack: Stack) -> None:
    with ChatClient(stack, [interest(events_pb2.BLOCK)]) as consumer:
        assert consumer.half_close() is grpc.StatusCode.OK


@pytest.mark.parametrize("service", OPERATIONS)
def test_the_log_level_is_changed_only_with_a_certificate(stack: Stack, service: str) -> None:
    tls = stack.user_tls("admin")
    url = f"https://localhost:{OPERATIONS[service]}/logspec"
    body = ["-X", "PUT", "-d", '{"spec": "info"}', url]
    curl: list[str | Path] = [
        "curl",
        "--silent",
        "--cacert",
        tls / "ca.crt",
        "--write-out",
        "%{http_code}",
    ]
    without = stack.run(*curl, *body).stdout
    assert without.endswith("403")
    assert "certificate" in without
    pair: list[str | Path] = ["--cert", tls / "client.crt", "--key", tls / "client.key"]
    assert stack.run(*curl, *pair, *body).stdout.endswith("204")
