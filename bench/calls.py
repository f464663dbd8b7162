"""What a chaincode asks of the peer within one transaction, beside the barest peers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from bench.client import CHANNEL, checked
from bench.comparison import Subject, Tally, beside, compare
from bench.load_client import Round
from bench.process import PATIENCE, BenchError
from bench.row import Row
from bench.site import Site, Yardstick
from bench.wire import pack
from selvedge_protos.peer.chaincode_pb2 import ChaincodeInput
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_pb2 import SignedProposal
from selvedge_protos.peer.proposal_response_pb2 import Response

_TXID = "0" * 64


@dataclass(frozen=True)
class Calls:
    """The calls of one transaction, one after the other.

    Attributes:
        name: of their row.
        words: what the chaincode is called with; it answers with the seconds they took.
        count: how many they are.
        answers: payloads that the barest peers answer them with, in turns, as the peer does.
    """

    name: str
    words: Sequence[object]
    count: int
    answers: Sequence[bytes | Message]


async def measure(site: Site, calls: Calls) -> dict[str, Tally]:
    """Have the chaincode make the calls, of the peer and of the yardsticks."""
    endorse = await site.client.endorser()

    async def transact(_: float) -> Round:
        answer = await endorse(site.client.propose(*calls.words).signed)
        return Round(float(checked(answer).response.payload), calls.count)

    subjects = {"ours": Subject(site.pid("chaincode-support"), transact)}
    for name, yardstick in site.yardsticks.items():
        subjects[name] = Subject(yardstick.pid, await _transacting(site, yardstick, calls))
    return await compare(subjects, site.effort.rounds)


async def row(site: Site, group: str, calls: Calls) -> Row:
    """The row of what `measure` gives."""
    return beside(group, calls.name, await measure(site, calls))


async def fill(site: Site, *calls: Sequence[object]) -> None:
    """Commit such calls, and return once all is quiet again."""
    await site.client.commit(await site.client.transactions(calls))
    await site.idle()


def message(
    kind: ChaincodeMessage.Type.ValueType,
    payload: bytes | Message,
    proposal: SignedProposal | None = None,
) -> ChaincodeMessage:
    """A message between a chaincode and its peer."""
    if isinstance(payload, Message):
        payload = payload.SerializeToString()
    return ChaincodeMessage(
        type=kind, payload=payload, txid=_TXID, channel_id=CHANNEL, proposal=proposal
    )


async def _transacting(
    site: Site, yardstick: Yardstick, calls: Calls
) -> Callable[[float], Awaitable[Round]]:
    words = [str(word).encode() for word in calls.words]
    transaction = message(ChaincodeMessage.TRANSACTION, ChaincodeInput(args=words))
    answers = [message(ChaincodeMessage.RESPONSE, each) for each in calls.answers]
    request = pack(each.SerializeToString() for each in (transaction, *answers))
    channel = await site.client.channel(yardstick.address)
    ask = channel.unary_unary("/bench.Raw/Transact")

    async def transact(_: float) -> Round:
        async with asyncio.timeout(PATIENCE):
            completed = ChaincodeMessage.FromString(await ask(request))
        response = Response.FromString(completed.payload)
        if completed.type != ChaincodeMessage.COMPLETED or response.status != 200:
            raise BenchError(f"the barest peer's chaincode failed: {completed.payload!r}")
        return Round(float(response.payload), calls.count)

    return transact
