"""No-op transactions a second on one chaincode stream, without what the endorser does."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

from bench.calls import message
from bench.comparison import Subject, beside, compare
from bench.load_client import Round
from bench.process import Program, module
from bench.row import Row
from bench.site import STREAM, Site, running_chaincode
from selvedge_protos.peer.chaincode_pb2 import ChaincodeInput
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_pb2 import SignedProposal
from selvedge_protos.peer.proposal_response_pb2 import Response

GROUP = "transactions on one chaincode stream"


async def measure(site: Site) -> list[Row]:
    """Run them within a process that has the stream and nothing else, 1, 8 and 32 at a time."""
    completed = message(ChaincodeMessage.COMPLETED, Response(status=200)).ByteSize()
    transaction = message(
        ChaincodeMessage.TRANSACTION,
        ChaincodeInput(args=[b"noop"]),
        SignedProposal.FromString(site.client.propose("noop").signed),
    ).ByteSize()
    for yardstick in site.yardsticks.values():
        await site.set_size(yardstick, transaction)
    async with module("stream_server", site.house.home) as server:
        address = await server.line()
        async with running_chaincode(site.chaincode, address, site.environment):
            return [
                await _measure(site, server, in_flight, completed, transaction)
                for in_flight in (1, 8, 32)
            ]


async def _measure(
    site: Site, server: Program, in_flight: int, completed: int, transaction: int
) -> Row:
    seconds = site.effort.round_seconds

    async def transact(part: float) -> Round:
        return Round(**json.loads(await server.ask(in_flight, seconds * part)))

    subjects = {"ours": Subject(server.pid, transact)}
    async with AsyncExitStack() as stack:
        for name, yardstick in site.yardsticks.items():
            # As the chaincode: what it sends is a COMPLETED, and what it gets a TRANSACTION.
            client = await stack.enter_async_context(
                site.load_client(
                    *("exchange", yardstick.address, STREAM),
                    size=completed,
                    answer=transaction,
                    window=in_flight,
                )
            )
            subjects[name] = Subject(yardstick.pid, client.rounds(seconds))
        tallies = await compare(subjects, site.effort.rounds)
    return beside(GROUP, f"{in_flight} in flight", tallies)
