"""Have a proposal simulated and signed by the peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio

from selvedge_cli.connection import Connection
from selvedge_cli.errors import CommandError, call_failed
from selvedge_common.protoutil.proposals import create_proposal, sign_proposal
from selvedge_protos.peer import peer_pb2_grpc, proposal_pb2, proposal_response_pb2


@dataclass(frozen=True)
class Call:
    """What to run.

    Attributes:
        chaincode: its name.
        args: the function's name and its arguments.
        transient: data that never reaches the ledger.
        is_init: run Init instead of Invoke.
    """

    chaincode: str
    args: Sequence[bytes]
    transient: Mapping[str, bytes] = field(default_factory=dict)
    is_init: bool = False


@dataclass(frozen=True)
class Endorsed:
    """A proposal and what the peer signed."""

    txid: str
    proposal: proposal_pb2.Proposal
    response: proposal_response_pb2.ProposalResponse

    @property
    def payload(self) -> bytes:
        """What the chaincode answered."""
        return self.response.response.payload


class NotEndorsed(CommandError):
    """The peer or the chaincode refused the proposal.

    Attributes:
        status: the status in the peer's response.
    """

    def __init__(self, chaincode: str, response: proposal_response_pb2.Response) -> None:
        super().__init__(
            f"{chaincode} was not endorsed (status {response.status}): {response.message}"
        )
        self.status = response.status


async def endorse(connection: Connection, call: Call, within: float) -> Endorsed:
    """Propose a call to the peer.

    Args:
        within: seconds for the whole of it; the peer gives the simulation up with it.

    Raises:
        NotEndorsed: the chaincode failed, or the peer does not endorse it.
        CommandError: the peer cannot be reached, or refused the proposal.
    """
    user, settings = connection.user, connection.settings
    proposal, txid = create_proposal(
        settings.channel,
        call.chaincode,
        call.args,
        user.signer.serialized,
        transient=call.transient,
        is_init=call.is_init,
    )
    address = settings.addresses.peer
    endorser = peer_pb2_grpc.EndorserStub(connection.channel(address))
    try:
        response = await endorser.ProcessProposal(
            sign_proposal(proposal, user.signer), timeout=within
        )
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise CommandError(
                f"{call.chaincode} was not endorsed by the peer at {address} within {within:g} s"
            ) from error
        raise call_failed(error, "the peer", address) from error
    if not 200 <= response.response.status < 400:
        raise NotEndorsed(call.chaincode, response.response)
    return Endorsed(txid, proposal, response)
