"""Transactions: endorsement, form, and the validation code of each fault."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from selvedge_common.msp import PEER
from selvedge_common.msp.policies import evaluate, signed_by_any_member, signed_by_role
from selvedge_common.protoutil.endorsements import create_transaction
from selvedge_common.protoutil.errors import (
    MalformedMessage,
    MalformedTransaction,
    MismatchedEndorsements,
)
from selvedge_common.protoutil.transactions import open_transaction
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import (
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

Code = transaction_pb2.TxValidationCode


def test_an_endorsement_covers_payload_and_endorser(endorse: Any, peer: Any) -> None:
    _, response = endorse()
    endorsement = response.endorsement
    assert endorsement.endorser == peer.serialized
    peer.certificate.public_key().verify(
        endorsement.signature,
        response.payload + endorsement.endorser,
        ec.ECDSA(hashes.SHA256()),
    )
    assert response.response.payload == b"answer"
    payload = proposal_response_pb2.ProposalResponsePayload.FromString(response.payload)
    action = proposal_pb2.ChaincodeAction.FromString(payload.extension)
    assert action.results == b"read-write set"
    assert action.response == response.response
    assert (action.chaincode_id.name, action.chaincode_id.version) == ("basic", "1.0")


def test_a_transaction_opens_to_what_was_endorsed(endorse: Any, client: Any, org1: Any) -> None:
    proposal, response = endorse(event="created")
    envelope = create_transaction(proposal, [response], client)
    for form in (envelope, envelope.SerializeToString()):
        opened = open_transaction(form)
        action = opened.open_action()
        assert action is not None
        assert opened.channel == "mychannel"
        assert opened.creator == client.serialized
        assert action.chaincode == "basic"
        assert action.chaincode_action.results == b"read-write set"
        assert action.event is not None
        assert action.event.event_name == "created"
        assert action.event.tx_id == opened.txid
        msps = {"Org1MSP": org1.msp}
        evaluate(signed_by_role(["Org1MSP"], [PEER]), action.endorsement_data(), msps)
        evaluate(signed_by_any_member(["Org1MSP"]), [opened.signed_data()], msps)
    client.certificate.public_key().verify(
        envelope.signature, envelope.payload, ec.ECDSA(hashes.SHA256())
    )


def test_transient_data_is_not_in_the_transaction_and_the_hash_still_fits(
    transact: Any,
) -> None:
    envelope = transact()
    assert b"value" not in envelope.payload
    payload = common_pb2.Payload.FromString(envelope.payload)
    transaction = transaction_pb2.Transaction.FromString(payload.data)
    action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    endorsed = proposal_response_pb2.ProposalResponsePayload.FromString(
        action.action.proposal_response_payload
    )
    covered = (
        payload.header.channel_header
        + payload.header.signature_header
        + action.chaincode_proposal_payload
    )
    assert endorsed.proposal_hash == hashlib.sha256(covered).digest()


def test_endorsements_are_collected_one_for_each_endorser(
    endorse: Any, client: Any, org1: Any, peer: Any
) -> None:
    second = org1.issue("peer1", "peer")
    proposal, one = endorse()
    _, two = endorse(by=second, proposal=proposal)
    action = open_transaction(create_transaction(proposal, [one, two, one], client)).open_action()
    assert action is not None
    endorsers = [endorsement.endorser for endorsement in action.endorsements]
    assert endorsers == [peer.serialized, second.serialized]


def test_endorsements_that_make_no_transaction_are_refused(
    endorse: Any, client: Any, peer: Any
) -> None:
    proposal, response = endorse()
    _, different = endorse(results=b"other", proposal=proposal)
    _, failed = endorse(status=500, proposal=proposal)
    unsigned = proposal_response_pb2.ProposalResponse()
    unsigned.CopyFrom(response)
    unsigned.ClearField("endorsement")
    for responses, sentence in (
        ([], "no endorsement"),
        ([response, different], "different results"),
        ([failed], "status 500"),
        ([unsigned], "No response carries"),
    ):
        with pytest.raises(MismatchedEndorsements, match=sentence):
            create_transaction(proposal, responses, client)
    with pytest.raises(MismatchedEndorsements, match="another identity"):
        create_transaction(proposal, [response], peer)
    with pytest.raises(MalformedMessage):
        create_transaction(proposal_pb2.Proposal(header=b"\xff"), [response], client)


class Parts:
    """The parts of a transaction, to reach into before they are put together again."""

    def __init__(self, envelope: common_pb2.Envelope) -> None:
        self.payload = common_pb2.Payload.FromString(envelope.payload)
        header = self.payload.header
        self.channel = common_pb2.ChannelHeader.FromString(header.channel_header)
        self.signature = common_pb2.SignatureHeader.FromString(header.signature_header)
        self.transaction = transaction_pb2.Transaction.FromString(self.payload.data)
        self.action = transaction_pb2.ChaincodeActionPayload.FromString(
            self.transaction.actions[0].payload
        )
        self.endorsed = proposal_response_pb2.ProposalResponsePayload.FromString(
            self.action.action.proposal_response_payload
        )
        self.chaincode = proposal_pb2.ChaincodeAction.FromString(self.endorsed.extension)

    def rehash(self) -> None:
        covered = (
            self.channel.SerializeToString()
            + self.transaction.actions[0].header
            + self.action.chaincode_proposal_payload
        )
        self.endorsed.proposal_hash = hashlib.sha256(covered).digest()

    def envelope(self) -> common_pb2.Envelope:
        if self.chaincode.ByteSize():
            self.endorsed.extension = self.chaincode.SerializeToString()
        self.action.action.proposal_response_payload = self.endorsed.SerializeToString()
        if self.transaction.actions:
            self.transaction.actions[0].payload = self.action.SerializeToString()
        self.payload.data = self.transaction.SerializeToString()
        self.payload.header.channel_header = self.channel.SerializeToString()
        self.payload.header.signature_header = self.signature.SerializeToString()
        return common_pb2.Envelope(payload=self.payload.SerializeToString(), signature=b"s")


def break_extension(parts: Parts) -> None:
    parts.channel.extension = b"\xff"
    parts.rehash()


def break_extension_and_action(parts: Parts) -> None:
    break_extension(parts)
    break_action(parts)


def drop_action(parts: Parts) -> None:
    parts.chaincode.Clear()
    parts.endorsed.extension = b""


def break_action(parts: Parts) -> None:
    parts.chaincode.Clear()
    parts.endorsed.extension = b"\xff"


def double(parts: Parts) -> None:
    parts.transaction.actions.append(parts.transaction.actions[0])


@pytest.mark.parametrize(
    ("code", "sentence", "change"),
    [
        (Code.BAD_COMMON_HEADER, "header type 99", lambda p: setattr(p.channel, "type", 99)),
        (Code.BAD_COMMON_HEADER, "epoch 7", lambda p: setattr(p.channel, "epoch", 7)),
        (Code.BAD_COMMON_HEADER, "no channel", lambda p: setattr(p.channel, "channel_id", "")),
        (Code.BAD_COMMON_HEADER, "no nonce", lambda p: setattr(p.signature, "nonce", b"")),
        (Code.BAD_COMMON_HEADER, "no creator", lambda p: setattr(p.signature, "creator", b"")),
        (Code.UNSUPPORTED_TX_PAYLOAD, "CONFIG_UPDATE", lambda p: setattr(p.channel, "type", 2)),
        (Code.BAD_PROPOSAL_TXID, "the id 'x'", lambda p: setattr(p.channel, "tx_id", "x")),
        (Code.INVALID_ENDORSER_TRANSACTION, "2 actions", double),
        (
            Code.INVALID_ENDORSER_TRANSACTION,
            "0 actions",
            lambda p: p.transaction.ClearField("actions"),
        ),
        (
            Code.INVALID_ENDORSER_TRANSACTION,
            "header lacks nonce or creator",
            lambda p: setattr(p.transaction.actions[0], "header", b""),
        ),
        (
            Code.INVALID_ENDORSER_TRANSACTION,
            "not that of this proposal",
            lambda p: setattr(p.endorsed, "proposal_hash", b"x" * 32),
        ),
        (Code.BAD_HEADER_EXTENSION, "header extension is not", break_extension),
        (Code.BAD_HEADER_EXTENSION, "header extension is not", break_extension_and_action),
        (Code.BAD_RESPONSE_PAYLOAD, "chaincode action is not", break_action),
        (Code.BAD_RESPONSE_PAYLOAD, "no chaincode action", drop_action),
    ],
)
def test_each_fault_has_its_code_and_sentence(
    transact: Any, code: Any, sentence: str, change: Callable[[Parts], Any]
) -> None:
    parts = Parts(transact())
    open_transaction(parts.envelope()).open_action()
    change(parts)
    with pytest.raises(MalformedTransaction, match=sentence) as refused:
        open_transaction(parts.envelope()).open_action()
    assert refused.value.code == code


@given(data=st.binary(max_size=200))
def test_random_bytes_raise_only_malformed_transaction(transact: Any, data: bytes) -> None:
    with pytest.raises(MalformedTransaction):
        open_transaction(data)
    with pytest.raises(MalformedTransaction) as refused:
        open_transaction(common_pb2.Envelope(payload=data))
    assert refused.value.code in (Code.BAD_PAYLOAD, Code.BAD_COMMON_HEADER)
    payload = common_pb2.Payload.FromString(transact().payload)
    payload.data = data
    with pytest.raises(MalformedTransaction) as refused:
        open_transaction(common_pb2.Envelope(payload=payload.SerializeToString()))
    assert refused.value.code == Code.INVALID_ENDORSER_TRANSACTION
