"""Proposals: what a client asks an endorser to run.

Follows Fabric 2.5's protoutil/proputils.go (form, transaction id, hash) and
core/endorser/msgvalidation.go (checks). Signature and rights of the creator are not judged here:
that is `msp.identify` and `Identity.verify` over `OpenedProposal.signed`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from selvedge_common.protoutil.errors import MalformedMessage, MalformedProposal
from selvedge_common.protoutil.field_count import has_more_fields
from selvedge_common.protoutil.wire import (
    Signer,
    marshal,
    new_nonce,
    parse,
    timestamp_of,
    transaction_id,
)
from selvedge_common.quoting import quoted
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import chaincode_pb2, proposal_pb2

# Arguments, decorations and transient entries of a proposal: far more than any chaincode is given,
# and so few that taking them apart holds nobody up.
MAX_FIELDS = 10_000
# ChaincodeInvocationSpec.chaincode_spec, ChaincodeSpec.input.
_INPUT_PATH = (1, 3)

_PROPOSAL_TYPES = (common_pb2.ENDORSER_TRANSACTION, common_pb2.CONFIG)


@dataclass(frozen=True)
class OpenedProposal:
    """A proposal in which everything an endorser relies on is present and consistent.

    Attributes:
        signed: the signed proposal as it came.
        proposal: the proposal in it; `proposal.payload` still holds the transient map.
        header, channel_header, signature_header: its headers.
        chaincode_spec: what to run; its name is that of the header's extension.
        input: the arguments.
        transient: the transient map, which never leaves the endorser.
        hash: the proposal hash (32 bytes), which covers no transient data.
    """

    signed: proposal_pb2.SignedProposal
    proposal: proposal_pb2.Proposal
    header: common_pb2.Header
    channel_header: common_pb2.ChannelHeader
    signature_header: common_pb2.SignatureHeader
    chaincode_spec: chaincode_pb2.ChaincodeSpec
    transient: Mapping[str, bytes]
    hash: bytes

    @property
    def channel(self) -> str:
        """The channel's name; empty when a part of the peer is asked about the peer."""
        return self.channel_header.channel_id

    @property
    def txid(self) -> str:
        """The transaction id."""
        return self.channel_header.tx_id

    @property
    def chaincode(self) -> str:
        """The name of the chaincode to run."""
        return self.chaincode_spec.chaincode_id.name

    @property
    def input(self) -> chaincode_pb2.ChaincodeInput:
        """The chaincode's arguments."""
        return self.chaincode_spec.input

    @property
    def creator(self) -> bytes:
        """The serialized identity of who proposes."""
        return self.signature_header.creator


def create_proposal(
    channel: str,
    chaincode: str,
    args: Sequence[bytes],
    creator: bytes,
    *,
    transient: Mapping[str, bytes] | None = None,
    is_init: bool = False,
    nonce: bytes | None = None,
    timestamp: datetime | None = None,
) -> tuple[proposal_pb2.Proposal, str]:
    """Make the proposal to run `chaincode` with `args`, and give it with its transaction id.

    Args:
        creator: the serialized identity of who will sign it.
        transient: data for the chaincode that is neither hashed nor kept in the transaction.
        is_init: whether the chaincode's Init is meant.
        nonce, timestamp: for reproducible proposals; by default random and now.
    """
    nonce = nonce if nonce is not None else new_nonce()
    txid = transaction_id(nonce, creator)
    chaincode_id = chaincode_pb2.ChaincodeID(name=chaincode)
    invocation = chaincode_pb2.ChaincodeInvocationSpec(
        chaincode_spec=chaincode_pb2.ChaincodeSpec(
            type=chaincode_pb2.ChaincodeSpec.GOLANG,
            chaincode_id=chaincode_id,
            input=chaincode_pb2.ChaincodeInput(args=args, is_init=is_init),
        )
    )
    header = common_pb2.Header(
        channel_header=marshal(
            common_pb2.ChannelHeader(
                type=common_pb2.ENDORSER_TRANSACTION,
                timestamp=timestamp_of(timestamp),
                channel_id=channel,
                tx_id=txid,
                extension=marshal(proposal_pb2.ChaincodeHeaderExtension(chaincode_id=chaincode_id)),
            )
        ),
        signature_header=marshal(common_pb2.SignatureHeader(creator=creator, nonce=nonce)),
    )
    payload = proposal_pb2.ChaincodeProposalPayload(
        input=marshal(invocation), TransientMap=dict(transient or {})
    )
    return proposal_pb2.Proposal(header=marshal(header), payload=marshal(payload)), txid


def sign_proposal(proposal: proposal_pb2.Proposal, signer: Signer) -> proposal_pb2.SignedProposal:
    """Sign the proposal's bytes."""
    data = marshal(proposal)
    return proposal_pb2.SignedProposal(proposal_bytes=data, signature=signer.sign(data))


def proposal_hash(channel_header: bytes, signature_header: bytes, visible_payload: bytes) -> bytes:
    """Give the SHA-256 over both marshalled headers and the payload without transient data."""
    return hashlib.sha256(channel_header + signature_header + visible_payload).digest()


def without_transient(payload: proposal_pb2.ChaincodeProposalPayload) -> bytes:
    """Marshal what of a proposal's payload goes into the hash and the transaction."""
    return marshal(proposal_pb2.ChaincodeProposalPayload(input=payload.input))


def open_proposal(signed: proposal_pb2.SignedProposal) -> OpenedProposal:
    """Open a proposal that a client sent and check its form. Raises MalformedProposal."""
    try:
        return _open(signed)
    except MalformedProposal:
        raise
    except MalformedMessage as error:
        raise MalformedProposal(str(error)) from error


def _open(signed: proposal_pb2.SignedProposal) -> OpenedProposal:
    if not signed.proposal_bytes:
        raise MalformedProposal("The signed proposal holds no proposal: send one.")
    if not signed.signature:
        raise MalformedProposal("The proposal is not signed: sign its bytes as its creator.")
    proposal = parse(proposal_pb2.Proposal, signed.proposal_bytes, "proposal")
    header = parse(common_pb2.Header, proposal.header, "header of the proposal")
    channel_header = parse(
        common_pb2.ChannelHeader, header.channel_header, "channel header of the proposal"
    )
    signature_header = parse(
        common_pb2.SignatureHeader, header.signature_header, "signature header of the proposal"
    )
    _check_headers(channel_header, signature_header)
    _check_fields(proposal.payload, "payload")
    payload = parse(
        proposal_pb2.ChaincodeProposalPayload, proposal.payload, "payload of the proposal"
    )
    return OpenedProposal(
        signed=signed,
        proposal=proposal,
        header=header,
        channel_header=channel_header,
        signature_header=signature_header,
        chaincode_spec=_chaincode_spec(channel_header, payload),
        transient=payload.TransientMap,
        hash=proposal_hash(
            header.channel_header, header.signature_header, without_transient(payload)
        ),
    )


def _check_headers(
    channel_header: common_pb2.ChannelHeader, signature_header: common_pb2.SignatureHeader
) -> None:
    if channel_header.type not in _PROPOSAL_TYPES:
        raise MalformedProposal(
            f"The proposal has the header type {channel_header.type}:"
            " send ENDORSER_TRANSACTION (3)."
        )
    if channel_header.epoch != 0:
        raise MalformedProposal(
            f"The proposal has the epoch {channel_header.epoch}: the only epoch is 0."
        )
    if not signature_header.nonce:
        raise MalformedProposal("The proposal has no nonce: set one in its signature header.")
    if not signature_header.creator:
        raise MalformedProposal(
            "The proposal has no creator: set your serialized identity in its signature header."
        )
    expected = transaction_id(signature_header.nonce, signature_header.creator)
    if channel_header.tx_id != expected:
        raise MalformedProposal(
            f"The proposal has the transaction id {quoted(channel_header.tx_id)} and its nonce and"
            f" creator give {expected}: set the hex SHA-256 over nonce and creator."
        )


def _check_fields(data: bytes, what: str, path: tuple[int, ...] = ()) -> None:
    if has_more_fields(data, MAX_FIELDS, path):
        raise MalformedProposal(
            f"The {what} of the proposal has more than {MAX_FIELDS} entries: pass fewer arguments,"
            " decorations or transient entries, and put more into each."
        )


def _chaincode_spec(
    channel_header: common_pb2.ChannelHeader, payload: proposal_pb2.ChaincodeProposalPayload
) -> chaincode_pb2.ChaincodeSpec:
    extension = parse(
        proposal_pb2.ChaincodeHeaderExtension,
        channel_header.extension,
        "header extension of the proposal",
    )
    name = extension.chaincode_id.name
    if not name:
        raise MalformedProposal(
            "The proposal's header names no chaincode: set chaincode_id in its extension."
        )
    _check_fields(payload.input, "chaincode input", _INPUT_PATH)
    spec = parse(
        chaincode_pb2.ChaincodeInvocationSpec, payload.input, "chaincode input of the proposal"
    ).chaincode_spec
    if not spec.HasField("input"):
        raise MalformedProposal(
            f"The proposal gives the chaincode {quoted(name)} no input: set the spec's input."
        )
    if spec.chaincode_id.name != name:
        raise MalformedProposal(
            f"The proposal's header names the chaincode {quoted(name)} and its input"
            f" {quoted(spec.chaincode_id.name)}: name the same one in both."
        )
    return spec
