"""What a signed proposal must be before anything is run for it.

Follows preProcess in core/endorser/endorser.go and Validate in core/endorser/msgvalidation.go of
Fabric 2.5. As there, a proposal that fails here ends the call with a gRPC error; ours carries a
status of its own for each cause instead of UNKNOWN, and says what was wrong.
"""

from __future__ import annotations

import grpc

from chaincode_support.channel import Channel
from chaincode_support.endorser import metrics
from selvedge_common.comm import StatusError
from selvedge_common.msp import IdentityError, PolicyNotSatisfied
from selvedge_common.protoutil.config_block import WRITERS
from selvedge_common.protoutil.errors import MalformedProposal
from selvedge_common.protoutil.proposals import OpenedProposal, open_proposal
from selvedge_protos.peer.proposal_pb2 import SignedProposal


def check_form(signed: SignedProposal) -> OpenedProposal:
    """The proposal, complete and consistent. Raises StatusError INVALID_ARGUMENT."""
    try:
        return open_proposal(signed)
    except MalformedProposal as error:
        metrics.proposal_validation_failures.inc()
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT, f"error validating proposal: {error}"
        ) from error


def check_rights(proposal: OpenedProposal, channel: Channel, chaincode_label: str) -> None:
    """Return when its creator signed it, may write to the channel, and it is not a replay.

    Raises StatusError: PERMISSION_DENIED, ALREADY_EXISTS.
    """
    creator = proposal.signature_header.creator
    try:
        identity = channel.identify(creator)
        identity.verify(proposal.signed.proposal_bytes, proposal.signed.signature)
    except IdentityError as error:
        metrics.proposal_validation_failures.inc()
        raise StatusError(
            grpc.StatusCode.PERMISSION_DENIED,
            f"error validating proposal: access denied: channel [{channel.name}]: {error}",
        ) from error
    labels = (channel.name, chaincode_label)
    if channel.ledger.has_transaction(proposal.txid):
        metrics.duplicate_transaction_failures.labels(*labels).inc()
        raise StatusError(
            grpc.StatusCode.ALREADY_EXISTS,
            f"duplicate transaction found [{proposal.txid}]: channel {channel.name} has it in a "
            "block already; send a new proposal with a new nonce",
        )
    try:
        channel.require(WRITERS, identity)
    except PolicyNotSatisfied as error:
        metrics.proposal_acl_failures.labels(*labels).inc()
        raise StatusError(grpc.StatusCode.PERMISSION_DENIED, f"access denied: {error}") from error
