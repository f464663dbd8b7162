"""Health and reflection, asked by grpcurl."""

import asyncio
import json
from typing import Any

import pytest
from tests.conformance.conftest import Target
from tests.conformance.programs import Ended, run, running
from tests.e2e.tools import require

HEALTH = "grpc.health.v1.Health"
_SECONDS = 30

pytestmark = [
    pytest.mark.parametrize("security", ["plaintext", "mtls"]),
    pytest.mark.parametrize("transport", ["grpcio", "native"]),
]


def _credentials(target: Target) -> list[str]:
    if not target.material:
        return ["-plaintext"]
    material = target.material
    pair = ["-cert", str(material.certificate), "-key", str(material.key)]
    return ["-cacert", str(material.ca), *pair]


async def _grpcurl(target: Target, *words: str) -> Ended:
    return await run(require("grpcurl"), *_credentials(target), *words, seconds=_SECONDS)


def _about(service: str) -> list[str]:
    return ["-d", json.dumps({"service": service})]


async def test_list_names_every_service(target: Target) -> None:
    ended = await _grpcurl(target, target.address, "list")
    assert ended.stdout.split() == list(target.server.services), ended.stderr
    assert "grpc.testing.TestService" in target.server.services


async def test_describe_shows_a_service_and_its_messages(target: Target) -> None:
    service = await _grpcurl(target, target.address, "describe", HEALTH)
    assert (
        "rpc Watch ( .grpc.health.v1.HealthCheckRequest ) "
        "returns ( stream .grpc.health.v1.HealthCheckResponse );"
    ) in service.stdout, service.stderr
    message = await _grpcurl(target, target.address, "describe", f"{HEALTH}CheckRequest")
    assert "string service = 1;" in message.stdout, message.stderr


async def test_a_call_is_made_by_what_reflection_tells(target: Target) -> None:
    request = json.dumps({"responseSize": 3})
    method = "grpc.testing.TestService/UnaryCall"
    ended = await _grpcurl(target, "-d", request, target.address, method)
    assert ended.code == 0, ended.stderr
    assert json.loads(ended.stdout) == {"payload": {"body": "AAAA"}}


@pytest.mark.parametrize("service", ["", "grpc.testing.TestService"], ids=["server", "service"])
async def test_check_tells_what_serves(target: Target, service: str) -> None:
    method = f"{HEALTH}/Check"
    ended = await _grpcurl(target, *_about(service), target.address, method)
    assert json.loads(ended.stdout) == {"status": "SERVING"}, ended.stderr
    target.server.set_serving(service, False)
    ended = await _grpcurl(target, *_about(service), target.address, method)
    assert json.loads(ended.stdout) == {"status": "NOT_SERVING"}, ended.stderr


async def test_check_of_an_unknown_service_is_not_found(target: Target) -> None:
    ended = await _grpcurl(target, *_about("no.such"), target.address, f"{HEALTH}/Check")
    assert ended.code != 0
    assert "Code: NotFound" in ended.stderr
    assert "Message: No service 'no.such' here" in ended.stderr


async def test_watch_tells_each_change(target: Target) -> None:
    words = [*_credentials(target), *_about("later.Service"), target.address, f"{HEALTH}/Watch"]
    async with running(require("grpcurl"), *words) as grpcurl, asyncio.timeout(_SECONDS):
        assert await _message(grpcurl) == {"status": "SERVICE_UNKNOWN"}
        target.server.set_serving("later.Service", True)
        assert await _message(grpcurl) == {"status": "SERVING"}
        target.server.set_serving("later.Service", False)
        assert await _message(grpcurl) == {"status": "NOT_SERVING"}


async def _message(grpcurl: asyncio.subprocess.Process) -> Any:
    """The next message that it prints, over several lines."""
    assert grpcurl.stdout is not None
    printed = await grpcurl.stdout.readuntil(b"\n}\n")
    return json.loads(printed)
