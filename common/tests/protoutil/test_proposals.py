"""Proposals: their form, and every way in which a hostile one differs from it."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selvedge_common.protoutil.errors import MalformedProposal
from selvedge_common.protoutil.field_count import has_more_fields
from selvedge_common.protoutil.proposals import (
    MAX_FIELDS,
    create_proposal,
    open_proposal,
    sign_proposal,
)
from selvedge_common.protoutil.wire import transaction_id
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import chaincode_pb2, proposal_pb2

Change = Callable[
    [
        common_pb2.ChannelHeader,
        common_pb2.SignatureHeader,
        proposal_pb2.ChaincodeHeaderExtension,
        chaincode_pb2.ChaincodeInvocationSpec,
    ],
    Any,
]


def changed(client: Any, change: Change) -> proposal_pb2.SignedProposal:
    """A signed proposal into whose parts a test reached; its id fits unless the test says so."""
    proposal, _ = create_proposal("mychannel", "basic", [b"a"], client.serialized)
    header = common_pb2.Header.FromString(proposal.header)
    channel = common_pb2.ChannelHeader.FromString(header.channel_header)
    signature = common_pb2.SignatureHeader.FromString(header.signature_header)
    extension = proposal_pb2.ChaincodeHeaderExtension.FromString(channel.extension)
    payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
    invocation = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input)
    change(channel, signature, extension, invocation)
    channel.extension = extension.SerializeToString()
    header.channel_header = channel.SerializeToString()
    header.signature_header = signature.SerializeToString()
    payload.input = invocation.SerializeToString()
    proposal.header = header.SerializeToString()
    proposal.payload = payload.SerializeToString()
    return sign_proposal(proposal, client)


def test_a_proposal_opens_to_what_was_proposed(client: Any) -> None:
    proposal, txid = create_proposal(
        "mychannel",
        "basic",
        [b"transfer", b"\x00\xff"],
        client.serialized,
        transient={"secret": b"value"},
        is_init=True,
        nonce=b"n" * 24,
        timestamp=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    opened = open_proposal(sign_proposal(proposal, client))
    assert txid == hashlib.sha256(b"n" * 24 + client.serialized).hexdigest() == opened.txid
    assert opened.channel == "mychannel"
    assert opened.chaincode == "basic"
    assert list(opened.input.args) == [b"transfer", b"\x00\xff"]
    assert opened.input.is_init
    assert dict(opened.transient) == {"secret": b"value"}
    assert opened.creator == client.serialized
    assert opened.channel_header.timestamp.ToJsonString() == "2030-01-02T03:04:05Z"
    client.verify(opened.signed.proposal_bytes, opened.signed.signature)


def test_the_hash_covers_both_headers_and_the_payload_without_transient_data(client: Any) -> None:
    def opened(transient: dict[str, bytes]) -> Any:
        proposal, _ = create_proposal(
            "mychannel",
            "basic",
            [b"a"],
            client.serialized,
            transient=transient,
            nonce=b"n",
            timestamp=datetime(2030, 1, 1, tzinfo=UTC),
        )
        return open_proposal(sign_proposal(proposal, client))

    plain, secret = opened({}), opened({"secret": b"value"})
    header = common_pb2.Header.FromString(plain.proposal.header)
    expected = header.channel_header + header.signature_header + plain.proposal.payload
    assert plain.hash == hashlib.sha256(expected).digest() == secret.hash
    assert b"value" in secret.proposal.payload


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        (r"header type 99: send ENDORSER_TRANSACTION", lambda c, s, e, i: setattr(c, "type", 99)),
        (r"header type 5", lambda c, s, e, i: setattr(c, "type", 5)),
        (r"epoch 1: the only epoch is 0", lambda c, s, e, i: setattr(c, "epoch", 1)),
        (r"has no nonce", lambda c, s, e, i: setattr(s, "nonce", b"")),
        (r"has no creator", lambda c, s, e, i: setattr(s, "creator", b"")),
        (r"transaction id 'x' and its nonce", lambda c, s, e, i: setattr(c, "tx_id", "x")),
        (r"its nonce and creator give", lambda c, s, e, i: setattr(s, "nonce", b"other")),
        (r"header names no chaincode", lambda c, s, e, i: e.Clear()),
        (r"no input", lambda c, s, e, i: i.chaincode_spec.ClearField("input")),
        (r"no input", lambda c, s, e, i: i.Clear()),
        (
            r"'basic' and its input 'other'",
            lambda c, s, e, i: setattr(i.chaincode_spec.chaincode_id, "name", "other"),
        ),
    ],
)
def test_each_fault_has_its_sentence(client: Any, sentence: str, change: Change) -> None:
    with pytest.raises(MalformedProposal, match=sentence):
        open_proposal(changed(client, change))


def test_a_config_proposal_is_one_too(client: Any) -> None:
    opened = open_proposal(changed(client, lambda c, s, e, i: setattr(c, "type", 1)))
    assert opened.channel_header.type == common_pb2.CONFIG


def test_nothing_and_unsigned_are_refused(client: Any) -> None:
    proposal, _ = create_proposal("mychannel", "basic", [], client.serialized)
    with pytest.raises(MalformedProposal, match="holds no proposal"):
        open_proposal(proposal_pb2.SignedProposal())
    with pytest.raises(MalformedProposal, match="is not signed"):
        open_proposal(proposal_pb2.SignedProposal(proposal_bytes=proposal.SerializeToString()))


@given(data=st.binary(min_size=1, max_size=200))
def test_random_bytes_raise_only_malformed_proposal(client: Any, data: bytes) -> None:
    proposal, _ = create_proposal("mychannel", "basic", [b"a"], client.serialized)
    header = common_pb2.Header.FromString(proposal.header)
    hostile = [
        data,
        proposal_pb2.Proposal(header=data, payload=proposal.payload).SerializeToString(),
        proposal_pb2.Proposal(
            header=common_pb2.Header(
                channel_header=data, signature_header=header.signature_header
            ).SerializeToString()
        ).SerializeToString(),
        proposal_pb2.Proposal(
            header=common_pb2.Header(
                channel_header=header.channel_header, signature_header=data
            ).SerializeToString()
        ).SerializeToString(),
        proposal_pb2.Proposal(
            header=proposal.header,
            payload=proposal_pb2.ChaincodeProposalPayload(input=data).SerializeToString(),
        ).SerializeToString(),
    ]
    for proposal_bytes in hostile:
        signed = proposal_pb2.SignedProposal(proposal_bytes=proposal_bytes, signature=b"s")
        with pytest.raises(MalformedProposal):
            open_proposal(signed)


def test_a_transaction_id_is_hex_of_sha256_over_nonce_and_creator() -> None:
    assert transaction_id(b"ab", b"c") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    "many",
    [{"args": [b""] * (MAX_FIELDS + 1)}, {"transient": {str(n): b"" for n in range(10_001)}}],
)
def test_too_many_entries_are_refused_before_they_are_taken_apart(
    client: Any, many: dict[str, Any]
) -> None:
    usual: dict[str, Any] = {"channel": "c", "chaincode": "cc", "args": []}
    proposal, _ = create_proposal(**{**usual, **many}, creator=client.serialized)
    with pytest.raises(MalformedProposal, match="more than 10000 entries"):
        open_proposal(sign_proposal(proposal, client))


def test_as_many_arguments_as_allowed_are_taken(client: Any) -> None:
    args = [b"argument"] * (MAX_FIELDS - 10)
    proposal, _ = create_proposal("c", "cc", args, client.serialized)
    assert len(open_proposal(sign_proposal(proposal, client)).input.args) == len(args)


@given(st.binary(max_size=200), st.integers(0, 20))
def test_counting_fields_takes_any_bytes(data: bytes, most: int) -> None:
    assert has_more_fields(data, most, (1, 3)) in (True, False)
