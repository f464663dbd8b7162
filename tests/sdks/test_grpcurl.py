"""grpcurl on the event hub: what is there, whether it serves, and a block."""

import base64
import json
import subprocess
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import load_pem_x509_certificate
from google.protobuf.json_format import MessageToDict
from tests.e2e.clients import CHANNEL, signer
from tests.e2e.stack import LISTENERS, Stack
from tests.e2e.tools import require

from selvedge_common.protoutil.seek_request import OLDEST, seek_envelope
from selvedge_protos.orderer import ab_pb2

ADDRESS, SERVICES = LISTENERS["events"]


def grpcurl(stack: Stack, *words: str) -> str:
    """What it prints, as user1."""
    tls = stack.user_tls("user1")
    words = ("-cert", str(tls / "client.crt"), "-key", str(tls / "client.key"), *words)
    done = subprocess.run(
        [str(require("grpcurl")), "-cacert", str(tls / "ca.crt"), *words],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_services_are_listed_and_described(stack: Stack) -> None:
    assert set(SERVICES) <= set(grpcurl(stack, ADDRESS, "list").split())
    described = grpcurl(stack, ADDRESS, "describe", "protos.Deliver")
    takes, gives = "stream .common.Envelope", "stream .protos.DeliverResponse"
    assert f"rpc DeliverFiltered ( {takes} ) returns ( {gives} );" in described


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_each_service_is_healthy(stack: Stack, service: str) -> None:
    asked = json.dumps({"service": service})
    answer = grpcurl(stack, "-d", asked, ADDRESS, "grpc.health.v1.Health/Check")
    assert json.loads(answer) == {"status": "SERVING"}


@pytest.mark.parametrize("method", ["Deliver", "DeliverFiltered"])
def test_a_block_is_delivered_as_reflection_describes_it(stack: Stack, method: str) -> None:
    certificate = (stack.user_tls("user1") / "client.crt").read_bytes()
    envelope = seek_envelope(
        *(CHANNEL, OLDEST, OLDEST, ab_pb2.SeekInfo.FAIL_IF_NOT_READY),
        signer(stack, "user1"),
        load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()),
    )
    asked = json.dumps(MessageToDict(envelope))
    printed = grpcurl(stack, "-d", asked, ADDRESS, f"protos.Deliver/{method}")
    block, status = _messages(printed)
    assert status == {"status": "SUCCESS"}
    if method == "Deliver":
        assert base64.b64decode(block["block"]["header"]["data_hash"])
        assert len(block["block"]["data"]["data"]) == 1
    else:
        assert block["filtered_block"]["channel_id"] == CHANNEL


def _messages(text: str) -> list[Any]:
    """The JSON objects that were printed, one after another."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        message, end = decoder.raw_decode(text)
        found.append(message)
        text = text[end:]
    return found
