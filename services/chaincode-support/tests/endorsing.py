"""An endorser on a real gRPC server, over a peer that raw shims dial, and who may ask it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from rawshim import PATIENCE, Peer
from testchannel import BATCH, CHAINCODE, CHANNEL, Network, Organisation

from chaincode_support.channel import Channel
from chaincode_support.endorser.endorser import Endorser
from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil import config_block, proposals
from selvedge_common.protoutil.config_block import open_config
from selvedge_protos.peer import proposal_pb2
from selvedge_protos.peer.proposal_response_pb2 import ProposalResponse


@dataclass
class Endorsing:
    """An endorser of one channel with the system chaincodes, and its chaincode listener."""

    network: Network
    peer: Peer
    channels: dict[str, Channel]
    endorser: Endorser
    process: Callable[..., Any]

    async def propose(
        self, *args: bytes, **fields: Any
    ) -> tuple[proposals.OpenedProposal, "asyncio.Task[ProposalResponse]"]:
        """Send a proposal for the test's chaincode; its answer is to come."""
        signed = self.sign(*args, **fields)
        return proposals.open_proposal(signed), asyncio.create_task(self.send(signed))

    def sign(
        self, *args: bytes, client: SigningIdentity | None = None, **fields: Any
    ) -> proposal_pb2.SignedProposal:
        client = client or self.network.client
        fields = {"channel": CHANNEL, "chaincode": CHAINCODE, **fields}
        proposal, _ = proposals.create_proposal(args=args, creator=client.serialized, **fields)
        return proposals.sign_proposal(proposal, client)

    async def send(self, signed: proposal_pb2.SignedProposal) -> ProposalResponse:
        response: ProposalResponse = await self.process(signed, timeout=PATIENCE)
        return response

    def add_closed_channel(self) -> str:
        """A channel that knows the network's people and lets only others read; its name."""
        configuration = open_config(
            config_block.genesis_block(
                "closed", [Organisation("ClosedMSP").msp.config()], ["localhost:7050"], BATCH
            )
        )
        msps = {**configuration.msps, **self.network.msps}
        self.channels["closed"] = Channel("closed", self.peer.ledger, msps, configuration.policies)
        return "closed"

    async def refusal(self, signed: proposal_pb2.SignedProposal) -> tuple[grpc.StatusCode, str]:
        """The gRPC error that a proposal ends with."""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.send(signed)
        return refused.value.code(), refused.value.details() or ""


StartEndorsing = Callable[..., Awaitable[Endorsing]]
