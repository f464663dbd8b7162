"""Requests that are bound to their connection. What else is checked, chaincode-support's tests
show."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest

from selvedge_common.comm import StatusError
from selvedge_common.msp import SigningIdentity
from selvedge_common.signed_requests import open_request, sign_request
from selvedge_protos.common import common_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2

WANTED = event_hub_pb2.SubscribeRequest(channel="mychannel")


def test_request_is_opened_with_its_signature(client: SigningIdentity) -> None:
    opened = open_request(sign_request(WANTED, client), datetime.now(UTC))
    assert opened.parse(event_hub_pb2.SubscribeRequest) == WANTED
    assert opened.signed.identity == client.serialized
    client.verify(opened.signed.message, opened.signed.signature)


def test_request_of_another_connection_is_refused(client: SigningIdentity) -> None:
    bound = sign_request(WANTED, client, tls_cert_hash=b"mine")
    assert open_request(bound, datetime.now(UTC), tls_binding=b"mine").data
    for request in (bound, sign_request(WANTED, client)):
        with pytest.raises(StatusError, match="is not bound to the TLS client certificate") as end:
            open_request(request, datetime.now(UTC), tls_binding=b"another's")
        assert end.value.code == grpc.StatusCode.UNAUTHENTICATED


def test_request_of_a_connection_with_a_certificate_is_refused_where_there_is_none(
    client: SigningIdentity,
) -> None:
    bound = sign_request(WANTED, client, tls_cert_hash=b"mine")
    assert open_request(sign_request(WANTED, client), datetime.now(UTC), tls_binding=b"").data
    assert open_request(bound, datetime.now(UTC), tls_binding=None).data
    with pytest.raises(StatusError, match="its connection shows none: show") as end:
        open_request(bound, datetime.now(UTC), tls_binding=b"")
    assert end.value.code == grpc.StatusCode.UNAUTHENTICATED


def test_request_is_good_for_a_while(client: SigningIdentity) -> None:
    request = sign_request(WANTED, client)
    assert open_request(request, datetime.now(UTC) + timedelta(minutes=14)).data
    with pytest.raises(StatusError, match="set the clock right"):
        open_request(request, datetime.now(UTC) + timedelta(minutes=16))


def test_data_that_is_something_else_is_refused(client: SigningIdentity) -> None:
    request = sign_request(common_pb2.Envelope(payload=b"\xff"), client)
    with pytest.raises(StatusError, match=r"is not a marshalled selvedge\.eventhub") as refused:
        open_request(request, datetime.now(UTC)).parse(event_hub_pb2.SubscribeRequest)
    assert refused.value.code == grpc.StatusCode.INVALID_ARGUMENT
