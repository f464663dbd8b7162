"""Transactions: endorsed proposals on their way into a block.

Follows Fabric 2.5 in checks, their order and validation codes, and in its two steps:
`open_transaction` is ValidateTransaction (core/common/validation/msgvalidation.go), after which the
transaction id can be relied on, and `OpenedTransaction.open_action` the beginning of Dispatch
(core/committer/txvalidator/v20/plugindispatcher/dispatcher.go). Signatures, names and policies are
not judged here: `OpenedTransaction.signed_data` and `EndorsedAction.endorsement_data` give what to
judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from selvedge_common.msp.policies import SignedData
from selvedge_common.protoutil.errors import (
    MalformedMessage,
    MalformedTransaction,
    ValidationCode,
)
from selvedge_common.protoutil.proposals import proposal_hash
from selvedge_common.protoutil.wire import parse, transaction_id
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import (
    chaincode_event_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

_M = TypeVar("_M", bound=Message)

_TYPES = (common_pb2.ENDORSER_TRANSACTION, common_pb2.CONFIG, common_pb2.CONFIG_UPDATE)


@dataclass(frozen=True)
class EndorsedAction:
    """What an endorser transaction does, and who vouches for it.

    Attributes:
        extension: of the channel header; names the chaincode that was proposed to.
        chaincode_action: results (a marshalled TxReadWriteSet), events, response, chaincode_id.
        proposal_response_payload: the bytes that the endorsers signed.
        endorsements: their identities and signatures.
        proposal_payload: the marshalled ChaincodeProposalPayload, without transient data.
    """

    extension: proposal_pb2.ChaincodeHeaderExtension
    chaincode_action: proposal_pb2.ChaincodeAction
    proposal_response_payload: bytes
    endorsements: Sequence[proposal_response_pb2.Endorsement]
    proposal_payload: bytes

    @property
    def chaincode(self) -> str:
        """The name of the chaincode that was proposed to; empty when the header names none."""
        return self.extension.chaincode_id.name

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
class BoundAction:
    """The one action of an endorser transaction, proven to belong to the transaction's proposal.

    Attributes:
        payload: the proposal's payload, and the endorsements.
        endorsed: what the endorsers signed; its extension is not opened yet.
    """

    payload: transaction_pb2.ChaincodeActionPayload
    endorsed: proposal_response_pb2.ProposalResponsePayload


@dataclass(frozen=True)
class OpenedTransaction:
    """A transaction whose form is sound.

    Attributes:
        envelope: the envelope as it came.
        header, channel_header, signature_header: its headers.
        data: the payload's data: a marshalled Transaction or ConfigEnvelope.
        bound: for an ENDORSER_TRANSACTION, its one action; None for CONFIG.
    """

    envelope: common_pb2.Envelope
    header: common_pb2.Header
    channel_header: common_pb2.ChannelHeader
    signature_header: common_pb2.SignatureHeader
    data: bytes
    bound: BoundAction | None

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

    def open_action(self) -> EndorsedAction | None:
        """Open what was endorsed; None for CONFIG. Raises MalformedTransaction.

        The names in it may be missing or differ: that is for who validates to find.
        """
        if self.bound is None:
            return None
        extension = _parse(
            proposal_pb2.ChaincodeHeaderExtension,
            self.channel_header.extension,
            "header extension",
            transaction_pb2.BAD_HEADER_EXTENSION,
        )
        bad_response = transaction_pb2.BAD_RESPONSE_PAYLOAD
        if not self.bound.endorsed.extension:
            raise MalformedTransaction(
                bad_response, "The endorsed payload holds no chaincode action: have it endorsed."
            )
        action = _parse(
            proposal_pb2.ChaincodeAction,
            self.bound.endorsed.extension,
            "chaincode action",
            bad_response,
        )
        return EndorsedAction(
            extension=extension,
            chaincode_action=action,
            proposal_response_payload=self.bound.payload.action.proposal_response_payload,
            endorsements=self.bound.payload.action.endorsements,
            proposal_payload=self.bound.payload.chaincode_proposal_payload,
        )


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
        # Fabric's NIL_ENVELOPE is unreachable: nothing parses as an envelope without headers.
        raise MalformedTransaction(
            transaction_pb2.BAD_COMMON_HEADER,
            "The envelope is empty: send a signed transaction in it.",
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
        bound = None
    else:
        _check_transaction_id(channel_header, signature_header)
        bound = _bind_action(header, payload.data)
    return OpenedTransaction(
        envelope, header, channel_header, signature_header, payload.data, bound
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


def _bind_action(header: common_pb2.Header, data: bytes) -> BoundAction:
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
    endorsed = _parse(
        proposal_response_pb2.ProposalResponsePayload,
        payload.action.proposal_response_payload,
        "endorsed payload",
        invalid,
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
    return BoundAction(payload, endorsed)


def _parse(kind: type[_M], data: bytes, what: str, code: ValidationCode) -> _M:
    try:
        return parse(kind, data, f"transaction's {what}")
    except MalformedMessage as error:
        raise MalformedTransaction(code, str(error)) from error
