"""From a proposal to a transaction: the endorser's signature, and the client's collecting of them.

Follows Fabric 2.5's protoutil/txutils.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from selvedge_common.protoutil.errors import MismatchedEndorsements
from selvedge_common.protoutil.proposals import OpenedProposal, without_transient
from selvedge_common.protoutil.wire import Signer, marshal, parse
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import (
    chaincode_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)


def create_proposal_response(
    proposal: OpenedProposal,
    response: proposal_response_pb2.Response,
    results: bytes,
    events: bytes,
    chaincode_id: chaincode_pb2.ChaincodeID,
    signer: Signer,
) -> proposal_response_pb2.ProposalResponse:
    """Endorse a simulated proposal.

    Args:
        response: what the chaincode answered.
        results: the marshalled TxReadWriteSet.
        events: the marshalled ChaincodeEvent, or nothing.
        chaincode_id: name and version of the chaincode that ran.
        signer: the endorser; it signs the response's payload followed by its own identity.
    """
    action = proposal_pb2.ChaincodeAction(
        results=results, events=events, response=response, chaincode_id=chaincode_id
    )
    payload = marshal(
        proposal_response_pb2.ProposalResponsePayload(
            proposal_hash=proposal.hash, extension=marshal(action)
        )
    )
    return proposal_response_pb2.ProposalResponse(
        version=1,
        response=response,
        payload=payload,
        endorsement=proposal_response_pb2.Endorsement(
            endorser=signer.serialized, signature=signer.sign(payload + signer.serialized)
        ),
    )


def create_transaction(
    proposal: proposal_pb2.Proposal,
    responses: Sequence[proposal_response_pb2.ProposalResponse],
    signer: Signer,
) -> common_pb2.Envelope:
    """Make a transaction of a proposal and its endorsements, signed by the proposal's creator.

    Raises MismatchedEndorsements when the responses are none, failed or differ, and
    MalformedMessage when the proposal does not parse.
    """
    header = parse(common_pb2.Header, proposal.header, "header of the proposal")
    payload = parse(
        proposal_pb2.ChaincodeProposalPayload, proposal.payload, "payload of the proposal"
    )
    creator = parse(
        common_pb2.SignatureHeader, header.signature_header, "signature header of the proposal"
    ).creator
    if creator != signer.serialized:
        raise MismatchedEndorsements(
            "The transaction would be signed by another identity than proposed it:"
            " sign with the proposal's creator."
        )
    endorsed = transaction_pb2.ChaincodeEndorsedAction(
        proposal_response_payload=_common_payload(responses),
        endorsements=_distinct_endorsements(responses),
    )
    action = transaction_pb2.TransactionAction(
        header=header.signature_header,
        payload=marshal(
            transaction_pb2.ChaincodeActionPayload(
                chaincode_proposal_payload=without_transient(payload), action=endorsed
            )
        ),
    )
    signed = marshal(
        common_pb2.Payload(
            header=header, data=marshal(transaction_pb2.Transaction(actions=[action]))
        )
    )
    return common_pb2.Envelope(payload=signed, signature=signer.sign(signed))


def _common_payload(responses: Sequence[proposal_response_pb2.ProposalResponse]) -> bytes:
    if not responses:
        raise MismatchedEndorsements("There is no endorsement: have the proposal endorsed first.")
    for response in responses:
        if not 200 <= response.response.status < 400:
            raise MismatchedEndorsements(
                f"An endorser refused with status {response.response.status}"
                f" ({response.response.message}): only successful responses make a transaction."
            )
        if response.payload != responses[0].payload:
            raise MismatchedEndorsements(
                "The endorsers computed different results for the same proposal:"
                " make the chaincode deterministic, or propose again once they agree."
            )
    return responses[0].payload


def _distinct_endorsements(
    responses: Sequence[proposal_response_pb2.ProposalResponse],
) -> list[proposal_response_pb2.Endorsement]:
    by_endorser: dict[bytes, proposal_response_pb2.Endorsement] = {}
    for response in responses:
        if response.HasField("endorsement"):
            by_endorser.setdefault(response.endorsement.endorser, response.endorsement)
    if not by_endorser:
        raise MismatchedEndorsements("No response carries an endorsement: ask an endorsing peer.")
    return list(by_endorser.values())
