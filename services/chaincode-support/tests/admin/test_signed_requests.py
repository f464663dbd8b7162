"""Whose signed requests are opened, and what is said of the others."""

from collections.abc import Callable
from datetime import timedelta

import grpc
import pytest
from adminrequests import NOW, request
from cryptography import x509
from prometheus_client import REGISTRY
from testchannel import Organisation

from chaincode_support.admin.signed_requests import signed_requests
from selvedge_common.comm import StatusError
from selvedge_common.msp import MSP
from selvedge_common.signed_requests import SignedRequests
from selvedge_protos.common import common_pb2
from selvedge_protos.peer.admin_pb2 import LogLevelRequest

MINUTE = timedelta(minutes=1)
MAX_BYTES = 10_000


@pytest.fixture(scope="module")
def organisation() -> Organisation:
    return Organisation("Org1MSP")


@pytest.fixture
def requests(organisation: Organisation) -> SignedRequests:
    return signed_requests(organisation.msp, max_bytes=MAX_BYTES, now=lambda: NOW)


def refusal(
    requests: SignedRequests, envelope: common_pb2.Envelope, *, admin: bool = False
) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(StatusError) as refused:
        requests.read(envelope, admin=admin)
    return refused.value.code, refused.value.details


@pytest.mark.parametrize("role", ["client", "peer", "admin"])
def test_members_request_is_opened(
    role: str, organisation: Organisation, requests: SignedRequests
) -> None:
    member = organisation.issue(role, "someone")
    assert (
        requests.read(request(member, b"what is asked for"), admin=False).data
        == b"what is asked for"
    )


def test_administrators_request_is_opened_and_tells_who(
    organisation: Organisation, requests: SignedRequests
) -> None:
    admin = organisation.issue("admin", "ada")
    opened = requests.read(request(admin, b"data"), admin=True)
    assert (opened.data, opened.signer) == (b"data", admin)


def test_administrator_may_be_one_by_the_organisations_list(organisation: Organisation) -> None:
    listed = organisation.issue("client", "ada")
    root = x509.load_pem_x509_certificate(organisation.root)
    msp = MSP("Org1MSP", [root], admins=[listed.certificate])
    requests = signed_requests(msp, max_bytes=MAX_BYTES, now=lambda: NOW)
    assert requests.read(request(listed), admin=True).data == b""


@pytest.mark.parametrize("role", ["client", "peer", "orderer"])
def test_member_is_no_administrator(
    role: str, organisation: Organisation, requests: SignedRequests
) -> None:
    code, sentence = refusal(requests, request(organisation.issue(role, "someone")), admin=True)
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert sentence.startswith(f"CN=someone,OU={role} of Org1MSP is no administrator of Org1MSP:")


@pytest.mark.parametrize("late", [-15 * MINUTE, 15 * MINUTE])
def test_time_within_the_window_is_taken(
    late: timedelta, organisation: Organisation, requests: SignedRequests
) -> None:
    client = organisation.issue("client", "someone")
    assert requests.read(request(client, b"x", stamped=late), admin=False).data == b"x"


@pytest.mark.parametrize("late", [-15.1 * MINUTE, 15.1 * MINUTE])
def test_time_beyond_the_window_is_refused(
    late: timedelta, organisation: Organisation, requests: SignedRequests
) -> None:
    client = organisation.issue("client", "someone")
    code, sentence = refusal(requests, request(client, stamped=late))
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "timestamp is 906 s from the clock of this service, more than 900 s" in sentence


def test_stranger_is_refused(requests: SignedRequests) -> None:
    code, sentence = refusal(requests, request(Organisation("OtherMSP").issue("admin", "mallory")))
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "not of a member of Org1MSP, the organisation of this service:" in sentence
    assert "'OtherMSP'" in sentence


def test_stranger_who_claims_the_organisation_is_refused(requests: SignedRequests) -> None:
    code, sentence = refusal(requests, request(Organisation("Org1MSP").issue("admin", "mallory")))
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "no chain of signatures leads from it to a root" in sentence


def test_expired_member_is_refused(organisation: Organisation, requests: SignedRequests) -> None:
    code, sentence = refusal(
        requests, request(organisation.issue("admin", "ada", valid=-10 * MINUTE)), admin=True
    )
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "expired at" in sentence


def test_signature_of_another_member_is_refused(
    organisation: Organisation, requests: SignedRequests
) -> None:
    envelope = request(organisation.issue("admin", "ada"))
    envelope.signature = organisation.issue("client", "eve").sign(envelope.payload)
    code, sentence = refusal(requests, envelope, admin=True)
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert sentence.startswith("the request was not signed by who it names:")


def test_payload_that_was_changed_is_refused(
    organisation: Organisation, requests: SignedRequests
) -> None:
    envelope = request(organisation.issue("admin", "ada"), b"remove nothing")
    envelope.payload = envelope.payload.replace(b"nothing", b"it all!")
    code, sentence = refusal(requests, envelope, admin=True)
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "does not match the message" in sentence


def test_envelope_of_another_type_is_refused(
    organisation: Organisation, requests: SignedRequests
) -> None:
    kind = common_pb2.DELIVER_SEEK_INFO
    code, sentence = refusal(requests, request(organisation.issue("admin", "ada"), kind=kind))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert sentence == (
        "the request is of type DELIVER_SEEK_INFO: give its channel header the type"
        " PEER_ADMIN_OPERATION"
    )


def _enveloped(payload: common_pb2.Payload) -> common_pb2.Envelope:
    return common_pb2.Envelope(payload=payload.SerializeToString(), signature=b"signature")


def _header(channel_header: bytes, signature_header: bytes = b"") -> common_pb2.Envelope:
    header = common_pb2.Header(channel_header=channel_header, signature_header=signature_header)
    return _enveloped(common_pb2.Payload(header=header))


def _typed(kind: int) -> bytes:
    return common_pb2.ChannelHeader(type=kind).SerializeToString()


def _stamped() -> bytes:
    header = common_pb2.ChannelHeader(type=common_pb2.PEER_ADMIN_OPERATION)
    header.timestamp.FromDatetime(NOW)
    return header.SerializeToString()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: _enveloped(common_pb2.Payload(data=b"data")), "the request has no header"),
        (lambda: _header(b"\xff"), "The channel header of the request is not a marshalled"),
        (lambda: _header(b""), "the request is of type MESSAGE"),
        (lambda: _header(_typed(99)), "the request is of type 99"),
        (
            lambda: _header(_typed(common_pb2.PEER_ADMIN_OPERATION)),
            "the request has no timestamp",
        ),
        (lambda: _header(_stamped(), b"\xff"), "The signature header of the request is not a"),
    ],
)
def test_malformed_envelope_is_refused(
    make: Callable[[], common_pb2.Envelope], sentence: str, requests: SignedRequests
) -> None:
    code, said = refusal(requests, make())
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert said.startswith(sentence)


def test_identity_that_is_none_is_refused(requests: SignedRequests) -> None:
    creator = common_pb2.SignatureHeader(creator=b"\xff").SerializeToString()
    code, sentence = refusal(requests, _header(_stamped(), creator))
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert "not a marshalled msp.SerializedIdentity" in sentence


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", grpc.StatusCode.UNAUTHENTICATED),
        (
            LogLevelRequest(log_module="chaincode").SerializeToString(),
            grpc.StatusCode.UNAUTHENTICATED,
        ),
        (
            LogLevelRequest(log_module="chaincode", log_level="debug").SerializeToString(),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ],
)
def test_request_of_release_1_0_is_told_to_be_signed(
    sent: bytes, code: grpc.StatusCode, requests: SignedRequests
) -> None:
    refused, sentence = refusal(requests, common_pb2.Envelope.FromString(sent), admin=True)
    assert refused == code
    assert "1.2 on" in sentence


def test_request_that_is_too_large_is_refused_and_counted(
    organisation: Organisation, requests: SignedRequests
) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("admin_requests_over_limit_total") or 0.0

    before = counted()
    code, sentence = refusal(
        requests, request(organisation.issue("admin", "ada"), bytes(MAX_BYTES))
    )
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "more than the 10000 of peer.limits.adminRequestBytes" in sentence
    assert counted() == before + 1
