"""What a signed proposal must be before anything is run for it.

Follows preProcess in core/endorser/endorser.go and Validate in core/endorser/msgvalidation.go of
Fabric 2.5. As there, a proposal that fails here ends the call with a gRPC error; ours carries a
status of its own for each cause instead of UNKNOWN, and says what was wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from chaincode_support.channel import Channel
from chaincode_support.endorser import metrics
from chaincode_support.system.names import SYSTEM_CHAINCODES
from selvedge_common.comm import StatusError
from selvedge_common.msp import MSP, Identity, IdentityError, PolicyNotSatisfied, identify
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


def check_needs_no_channel(proposal: OpenedProposal) -> None:
    """Return when it asks a part of the peer. Raises StatusError INVALID_ARGUMENT."""
    if proposal.chaincode not in SYSTEM_CHAINCODES:
        metrics.proposal_validation_failures.inc()
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "error validating proposal: The proposal names no channel: set channel_id in its "
            "header. Only system chaincodes can be asked without one.",
        )


def check_member(proposal: OpenedProposal, organisation: MSP) -> None:
    """Return when a member of the peer's organisation signed a proposal that has no channel.

    Raises StatusError PERMISSION_DENIED.
    """
    _identify(proposal, {organisation.mspid: organisation}, "")


def check_rights(proposal: OpenedProposal, channel: Channel, chaincode_label: str) -> None:
    """Return when its creator signed it, may write to the channel, and it is not a replay.

    Whether system chaincodes may be called is theirs to say, as in Fabric. Raises StatusError:
    PERMISSION_DENIED, ALREADY_EXISTS.
    """
    identity = _identify(proposal, channel.msps, channel.name)
    labels = (channel.name, chaincode_label)
    if channel.ledger.has_transaction(proposal.txid):
        metrics.duplicate_transaction_failures.labels(*labels).inc()
        raise StatusError(
            grpc.StatusCode.ALREADY_EXISTS,
            f"duplicate transaction found [{proposal.txid}]: channel {channel.name} has it in a "
            "block already; send a new proposal with a new nonce",
        )
    if proposal.chaincode in SYSTEM_CHAINCODES:
        return
    try:
        channel.require(WRITERS, identity)
    except PolicyNotSatisfied as error:
        metrics.proposal_acl_failures.labels(*labels).inc()
        raise StatusError(grpc.StatusCode.PERMISSION_DENIED, f"access denied: {error}") from error


def _identify(proposal: OpenedProposal, msps: Mapping[str, MSP], channel: str) -> Identity:
    try:
        identity = identify(proposal.creator, msps)
        identity.verify(proposal.signed.proposal_bytes, proposal.signed.signature)
    except IdentityError as error:
        metrics.proposal_validation_failures.inc()
        raise StatusError(
            grpc.StatusCode.PERMISSION_DENIED,
            f"error validating proposal: access denied: channel [{channel}]: {error}",
        ) from error
    return identity
