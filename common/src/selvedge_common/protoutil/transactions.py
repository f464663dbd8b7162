"""Transactions: endorsed proposals on their way into a block.

Follows Fabric 2.5's core/common/validation/msgvalidation.go (checks and validation codes).
Signatures and policies are not judged here: `OpenedTransaction.signed_data` and
`EndorsedAction.endorsement_data` give what to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from selvedge_common.msp.policies import SignedData
from selvedge_common.protoutil.endorsements import create_proposal_response, create_transaction
from selvedge_common.protoutil.errors import (
    MalformedMessage,
    MalformedTransaction,
    ValidationCode,
)
from selvedge_common.protoutil.proposals import proposal_hash, transaction_id
from selvedge_common.protoutil.wire import parse
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import (
    chaincode_event_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

__all__ = [
    "EndorsedAction",
    "OpenedTransaction",
    "create_proposal_response",
    "create_transaction",
    "open_transaction",
    "proposal_hash",
]

_M = TypeVar("_M", bound=Message)

_TYPES = (common_pb2.ENDORSER_TRANSACTION, common_pb2.CONFIG, common_pb2.CONFIG_UPDATE)


@dataclass(frozen=True)
class EndorsedAction:
    """What an endorser transaction does, and who vouches for it.

    Attributes:
        chaincode: the name of the chaincode that ran.
        chaincode_action: results (a marshalled TxReadWriteSet), events, response, chaincode_id.
        proposal_response_payload: the bytes that the endorsers signed.
        endorsements: their identities and signatures.
        proposal_payload: the marshalled ChaincodeProposalPayload, without transient data.
    """

    chaincode: str
    chaincode_action: proposal_pb2.ChaincodeAction
    proposal_response_payload: bytes
    endorsements: Sequence[proposal_response_pb2.Endorsement]
    proposal_payload: bytes

    @property
    def event(self) -> chaincode_event_pb2.ChaincodeEvent | None:
        """The chaincode's event, if it set one; None also for one that does not parse."""
        if not self.chaincode_action.events:
            return None
        try:
            return parse(
                chaincode_event_pb2.ChaincodeEvent, self.chaincode_action.events, "chaincode event"
            )
        except MalformedMessage:
            return None

    def endorsement_data(self) -> list[SignedData]:
        """Give each endorsement as a signature over what it covers."""
        return [
            SignedData(
                self.proposal_response_payload + endorsement.endorser,
                endorsement.endorser,
                endorsement.signature,
            )
            for endorsement in self.endorsements
        ]


@dataclass(frozen=True)
class OpenedTransaction:
    """A transaction whose form is sound.

    Attributes:
        envelope: the envelope as it came.
        header, channel_header, signature_header: its headers.
        data: the payload's data: a marshalled Transaction or ConfigEnvelope.
        action: for an ENDORSER_TRANSACTION, its one action; None for CONFIG.
    """

    envelope: common_pb2.Envelope
    header: common_pb2.Header
    channel_header: common_pb2.ChannelHeader
    signature_header: common_pb2.SignatureHeader
    data: bytes
    action: EndorsedAction | None

    @property
    def channel(self) -> str:
        """The channel's name."""
        return self.channel_header.channel_id

    @property
    def txid(self) -> str:
        """The transaction id."""
        return self.channel_header.tx_id

    @property
    def creator(self) -> bytes:
        """The serialized identity of who submitted it; empty only in a CONFIG."""
        return self.signature_header.creator

    def signed_data(self) -> SignedData:
        """Give the creator's signature over what it covers."""
        return SignedData(self.envelope.payload, self.creator, self.envelope.signature)


def open_transaction(envelope: common_pb2.Envelope | bytes) -> OpenedTransaction:
    """Open a transaction and check its form.

    A CONFIG may lack a creator, as a genesis block's does: what it changes is signed inside, and
    the block's signature vouches for it. Raises MalformedTransaction with the validation code.
    """
    if isinstance(envelope, bytes):
        envelope = _parse(
            common_pb2.Envelope, envelope, "envelope", transaction_pb2.INVALID_OTHER_REASON
        )
    if not envelope.payload:
        raise MalformedTransaction(
            transaction_pb2.NIL_ENVELOPE, "The envelope is empty: send a signed transaction in it."
        )
    payload = _parse(
        common_pb2.Payload, envelope.payload, "payload of the envelope", transaction_pb2.BAD_PAYLOAD
    )
    header = payload.header
    bad_header = transaction_pb2.BAD_COMMON_HEADER
    channel_header = _parse(
        common_pb2.ChannelHeader, header.channel_header, "channel header", bad_header
    )
    signature_header = _parse(
        common_pb2.SignatureHeader, header.signature_header, "signature header", bad_header
    )
    _check_headers(channel_header, signature_header)
    if channel_header.type == common_pb2.CONFIG:
        action = None
    else:
        _check_transaction_id(channel_header, signature_header)
        action = _open_action(header, channel_header, payload.data)
    return OpenedTransaction(
        envelope, header, channel_header, signature_header, payload.data, action
    )


def _check_headers(
    channel_header: common_pb2.ChannelHeader, signature_header: common_pb2.SignatureHeader
) -> None:
    def refuse(sentence: str) -> MalformedTransaction:
        return MalformedTransaction(transaction_pb2.BAD_COMMON_HEADER, sentence)

    if channel_header.type not in _TYPES:
        raise refuse(
            f"The transaction has the header type {channel_header.type}:"
            " send ENDORSER_TRANSACTION (3)."
        )
    if channel_header.epoch != 0:
        raise refuse(f"The transaction has the epoch {channel_header.epoch}: the only epoch is 0.")
    if not channel_header.channel_id:
        raise refuse("The transaction names no channel: set channel_id in its header.")
    if not signature_header.nonce:
        raise refuse("The transaction has no nonce: set one in its signature header.")
    if not signature_header.creator and channel_header.type != common_pb2.CONFIG:
        raise refuse(
            "The transaction has no creator: set your serialized identity in its signature header."
        )
    if channel_header.type == common_pb2.CONFIG_UPDATE:
        raise MalformedTransaction(
            transaction_pb2.UNSUPPORTED_TX_PAYLOAD,
            "A CONFIG_UPDATE has no place in a block: an orderer turns it into a CONFIG first.",
        )


def _check_transaction_id(
    channel_header: common_pb2.ChannelHeader, signature_header: common_pb2.SignatureHeader
) -> None:
    expected = transaction_id(signature_header.nonce, signature_header.creator)
    if channel_header.tx_id != expected:
        raise MalformedTransaction(
            transaction_pb2.BAD_PROPOSAL_TXID,
            f"The transaction has the id {channel_header.tx_id!r} and its nonce and creator give"
            f" {expected}: keep the proposal's header unchanged.",
        )


def _open_action(
    header: common_pb2.Header, channel_header: common_pb2.ChannelHeader, data: bytes
) -> EndorsedAction:
    invalid = transaction_pb2.INVALID_ENDORSER_TRANSACTION
    actions = _parse(transaction_pb2.Transaction, data, "transaction", invalid).actions
    if len(actions) != 1:
        raise MalformedTransaction(
            invalid, f"The transaction has {len(actions)} actions: exactly one is supported."
        )
    action_header = _parse(
        common_pb2.SignatureHeader, actions[0].header, "header of the action", invalid
    )
    if not action_header.nonce or not action_header.creator:
        raise MalformedTransaction(
            invalid,
            "The action's header lacks nonce or creator: repeat the proposal's signature header.",
        )
    payload = _parse(
        transaction_pb2.ChaincodeActionPayload,
        actions[0].payload,
        "payload of the action",
        invalid,
    )
    signed = payload.action.proposal_response_payload
    endorsed = _parse(
        proposal_response_pb2.ProposalResponsePayload, signed, "endorsed payload", invalid
    )
    computed = proposal_hash(
        header.channel_header, actions[0].header, payload.chaincode_proposal_payload
    )
    if endorsed.proposal_hash != computed:
        raise MalformedTransaction(
            invalid,
            "The endorsed proposal hash is not that of this proposal:"
            " submit the endorsements with the proposal that they were given for.",
        )
    action = _parse(
        proposal_pb2.ChaincodeAction,
        endorsed.extension,
        "chaincode action",
        transaction_pb2.BAD_RESPONSE_PAYLOAD,
    )
    return EndorsedAction(
        chaincode=_chaincode(channel_header, action),
        chaincode_action=action,
        proposal_response_payload=signed,
        endorsements=payload.action.endorsements,
        proposal_payload=payload.chaincode_proposal_payload,
    )


def _chaincode(
    channel_header: common_pb2.ChannelHeader, action: proposal_pb2.ChaincodeAction
) -> str:
    named = _parse(
        proposal_pb2.ChaincodeHeaderExtension,
        channel_header.extension,
        "header extension",
        transaction_pb2.BAD_HEADER_EXTENSION,
    ).chaincode_id.name
    if not named:
        raise MalformedTransaction(
            transaction_pb2.BAD_HEADER_EXTENSION,
            "The transaction's header names no chaincode: keep the proposal's header unchanged.",
        )
    if action.chaincode_id.name != named:
        raise MalformedTransaction(
            transaction_pb2.INVALID_CHAINCODE,
            f"The header names the chaincode {named!r} and the endorsed action"
            f" {action.chaincode_id.name!r}: they must be the same.",
        )
    return named


def _parse(kind: type[_M], data: bytes, what: str, code: ValidationCode) -> _M:
    try:
        return parse(kind, data, f"transaction's {what}")
    except MalformedMessage as error:
        raise MalformedTransaction(code, str(error)) from error
