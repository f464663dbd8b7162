"""What a chaincode asks of the peer within one transaction, beside messages of the same sizes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bench.client import CHANNEL, checked
from bench.comparison import Subject, Tally, beside, compare
from bench.load_client import Round
from bench.row import Row
from bench.site import STREAM, Site
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_pb2 import SignedProposal

_TXID = "0" * 64


@dataclass(frozen=True)
class Calls:
    """The calls of one transaction, one after the other.

    Attributes:
        name: of their row.
        words: what the chaincode is called with; it answers with the seconds they took.
        count: how many they are.
        request: bytes of each message to the peer.
        answer: bytes of each message from it.
        exchanges: messages each way for one of them.
    """

    name: str
    words: Sequence[object]
    count: int
    request: int
    answer: int
    exchanges: float = 1


async def measure(site: Site, calls: Calls) -> dict[str, Tally]:
    """Have the chaincode make the calls, and the yardsticks exchange as many messages."""
    endorse = await site.client.endorser()

    async def transact(_: float) -> Round:
        answer = await endorse(site.client.propose(*calls.words).signed)
        return Round(float(checked(answer).response.payload), calls.count)

    subjects = {"ours": Subject(site.pid("chaincode-support"), transact)}
    async with AsyncExitStack() as stack:
        for name, yardstick in site.yardsticks.items():
            await site.set_size(yardstick, calls.answer)
            client = await stack.enter_async_context(
                site.load_client(
                    *("exchange", yardstick.address, STREAM),
                    size=calls.request,
                    answer=calls.answer,
                )
            )
            rounds = client.rounds(site.effort.round_seconds)
            subjects[name] = Subject(yardstick.pid, rounds, calls.exchanges)
        return await compare(subjects, site.effort.rounds)


async def row(site: Site, group: str, calls: Calls) -> Row:
    """The row of what `measure` gives."""
    return beside(group, calls.name, await measure(site, calls))


async def fill(site: Site, *calls: Sequence[object]) -> None:
    """Commit such calls, and return once all is quiet again."""
    await site.client.commit(await site.client.transactions(calls))
    await site.idle()


def size(
    kind: ChaincodeMessage.Type.ValueType, payload: bytes, proposal: SignedProposal | None = None
) -> int:
    """The bytes of a message between a chaincode and its peer."""
    return ChaincodeMessage(
        type=kind, payload=payload, txid=_TXID, channel_id=CHANNEL, proposal=proposal
    ).ByteSize()
