"""ProcessProposal: check, simulate, endorse.

Follows core/endorser/endorser.go of Fabric 2.5. Errors about the proposal itself end the call with
a gRPC status; errors about running it come in a ProposalResponse, with status 500 and the sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc

from chaincode_support.chaincode.errors import ChaincodeError
from chaincode_support.chaincode.executor import Transaction
from chaincode_support.chaincode.support import ChaincodeSupport, Execution
from chaincode_support.channel import Channel
from chaincode_support.endorser import metrics
from chaincode_support.endorser.checks import (
    check_form,
    check_member,
    check_needs_no_channel,
    check_rights,
)
from chaincode_support.ledger import LedgerBusy, LedgerError
from selvedge_common.comm import StatusError
from selvedge_common.logs import get_logger
from selvedge_common.msp import MSP, SigningIdentity
from selvedge_common.protoutil.endorsements import create_proposal_response
from selvedge_common.protoutil.proposals import OpenedProposal
from selvedge_common.quoting import printable, quoted
from selvedge_protos.peer.chaincode_pb2 import ChaincodeID
from selvedge_protos.peer.peer_pb2_grpc import EndorserServicer
from selvedge_protos.peer.proposal_pb2 import SignedProposal
from selvedge_protos.peer.proposal_response_pb2 import ProposalResponse, Response

log = get_logger("endorser")

# A chaincode's status from here on is a refusal: nothing is endorsed (shim.ERRORTHRESHOLD).
ERROR_THRESHOLD = 400
ERROR = 500
# A chaincode's failure may be as long as a message; the client gets all of it, the log the start.
_LOGGED_CHARACTERS = 500


class Endorser(EndorserServicer):
    """Serves `protos.Endorser`: at most `max_proposals` in work at a time.

    Proposals without a channel, which ask a system chaincode about the peer, are for members of the
    peer's own `organisation`.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        chaincodes: ChaincodeSupport,
        signer: SigningIdentity,
        organisation: MSP,
        *,
        max_proposals: int,
    ) -> None:
        self._channels = channels
        self._chaincodes = chaincodes
        self._signer = signer
        self._organisation = organisation
        self._max_proposals = max_proposals
        self._in_work = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def drain(self) -> None:
        """Take no more proposals, and wait until none is in work."""
        self._draining = True
        await self._idle.wait()

    async def ProcessProposal(  # noqa: N802  # gRPC's name of the method
        self, request: SignedProposal, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ProposalResponse:
        """Simulate a signed proposal and endorse the result.

        A client that cancels, or whose deadline passes, frees the transaction, its queries and
        its snapshot at once. Raises StatusError: RESOURCE_EXHAUSTED, UNAVAILABLE while the peer
        stops, and what the checks raise.
        """
        metrics.proposals_received.inc()
        with self._counted():
            started = time.perf_counter()
            proposal = check_form(request)
            channel = self._channels.get(proposal.channel)
            if channel is None and proposal.channel:
                return _failed(
                    f"channel {quoted(proposal.channel)} not found: this peer has "
                    f"{', '.join(sorted(self._channels))}"
                )
            # Names that never registered stay out of the labels: a client could make any number.
            known = self._chaincodes.registry.known(proposal.chaincode)
            labels = (proposal.channel, proposal.chaincode if known else metrics.UNKNOWN)
            if channel is not None:
                check_rights(proposal, channel, labels[1])
            else:
                check_needs_no_channel(proposal)
                check_member(proposal, self._organisation)
            success = False
            try:
                response = await self._simulate_and_endorse(proposal, channel, labels)
                # Without a channel there is nothing to endorse.
                success = channel is None or response.HasField("endorsement")
            finally:
                metrics.proposal_duration.labels(*labels, str(success).lower()).observe(
                    time.perf_counter() - started
                )
            if success:
                metrics.successful_proposals.inc()
            return response

    async def _simulate_and_endorse(
        self, proposal: OpenedProposal, channel: Channel | None, labels: tuple[str, str]
    ) -> ProposalResponse:
        try:
            execution, results = await self._simulate(proposal, channel)
        except LedgerBusy as error:
            metrics.proposal_simulation_failures.labels(*labels).inc()
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
        except (ChaincodeError, LedgerError) as error:
            metrics.proposal_simulation_failures.labels(*labels).inc()
            log.warning(
                "proposal failed",
                channel=proposal.channel,
                chaincode=printable(proposal.chaincode),
                txid=proposal.txid,
                reason=str(error)[:_LOGGED_CHARACTERS],
            )
            return _failed(
                f"error in simulation: failed to execute transaction {proposal.txid}: {error}"
            )
        if channel is None:
            return ProposalResponse(response=execution.response)
        endorsed = self._endorse(proposal, execution, results)
        if execution.response.status < ERROR_THRESHOLD:
            return endorsed
        refused = ProposalResponse(response=execution.response)
        # As in 2.5: from 500 on a client sees what the simulation would have written, and only
        # what is below counts as a failed endorsement.
        if execution.response.status >= ERROR:
            refused.payload = endorsed.payload
        else:
            metrics.endorsement_failures.labels(*labels, "true").inc()
        return refused

    async def _simulate(
        self, proposal: OpenedProposal, channel: Channel | None
    ) -> tuple[Execution, bytes]:
        # The snapshot only then: a chaincode that is waited for must not hold those of the others.
        executor = await self._chaincodes.launch(proposal.chaincode)
        simulator = None
        if channel is not None and executor.simulates:
            simulator = channel.ledger.simulator(proposal.txid, proposal.chaincode)
        try:
            execution = await self._chaincodes.execute(
                Transaction(
                    channel=proposal.channel,
                    txid=proposal.txid,
                    chaincode=proposal.chaincode,
                    input=proposal.input,
                    simulator=simulator,
                    proposal=proposal.signed,
                    creator=proposal.creator,
                )
            )
            return execution, simulator.results() if simulator is not None else b""
        finally:
            if simulator is not None:
                simulator.close()

    def _endorse(
        self, proposal: OpenedProposal, execution: Execution, results: bytes
    ) -> ProposalResponse:
        return create_proposal_response(
            proposal,
            execution.response,
            results,
            execution.event.SerializeToString() if execution.event else b"",
            ChaincodeID(name=proposal.chaincode, version=execution.version),
            self._signer,
        )

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        if self._draining:
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE,
                "the peer is stopping and takes no more proposals: try again once it is back, or "
                "ask another peer",
            )
        if self._in_work >= self._max_proposals:
            metrics.proposals_over_limit.inc()
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the peer has {self._max_proposals} proposals in work, the limit of "
                "peer.limits.concurrency.endorserService; try again later",
            )
        self._in_work += 1
        self._idle.clear()
        metrics.proposals_in_work.set(self._in_work)
        try:
            yield
        finally:
            self._in_work -= 1
            if not self._in_work:
                self._idle.set()
            metrics.proposals_in_work.set(self._in_work)


def _failed(reason: str) -> ProposalResponse:
    return ProposalResponse(response=Response(status=ERROR, message=reason))
