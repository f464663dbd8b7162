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
from tests.e2e.stack import LISTENERS, OPERATIONS, ROOT, Stack
from tests.e2e.tools import require

from selvedge_common.protoutil.proposals import sign_proposal
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


def readme_lines(program: str) -> list[str]:
    """The README's commands of one program, continuation lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(f"{program} ")]


def test_the_grpcurl_lines_of_the_readme_work_as_written(stack: Stack) -> None:
    require("grpcurl")
    lines = readme_lines("grpcurl")
    assert len(lines) >= 5, "the README shows a line for each listener"
    for line in lines:
        answer = stack.run(*shlex.split(line)).stdout
        assert "grpc.health.v1.Health" in answer or "SERVING" in answer, line


@mutual_listeners
def test_a_client_without_a_certificate_is_refused(stack: Stack, listener: str) -> None:
    address, _ = LISTENERS[listener]
    with stack.channel(address, user=None) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            health.Check(health_pb2.HealthCheckRequest(), timeout=5)
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
