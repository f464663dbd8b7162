"""However a proposal ends, its snapshot is given back."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
from endorsing import Endorsing, StartEndorsing
from prometheus_client import REGISTRY
from rawshim import PATIENCE, Dial, RawShim
from testchannel import CHAINCODE, CHANNEL

from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage, GetStateByRange
from selvedge_protos.peer.proposal_response_pb2 import ProposalResponse

M = ChaincodeMessage
Answer = asyncio.Task[ProposalResponse]
End = Callable[[RawShim, ChaincodeMessage, Answer], Awaitable[None]]


def snapshots() -> float:
    """How many are out."""
    return REGISTRY.get_sample_value("ledger_simulations_in_use", {"channel": CHANNEL}) or 0


async def complete(shim: RawShim, message: ChaincodeMessage, _: Answer) -> None:
    await shim.complete(message)


async def refuse(shim: RawShim, message: ChaincodeMessage, _: Answer) -> None:
    await shim.complete(message, status=500)


async def fail(shim: RawShim, message: ChaincodeMessage, _: Answer) -> None:
    await shim.say(M(type=M.ERROR, txid=message.txid))


async def write_badly(shim: RawShim, message: ChaincodeMessage, _: Answer) -> None:
    await shim.put("", b"", message)


async def answer_garbage(shim: RawShim, message: ChaincodeMessage, _: Answer) -> None:
    await shim.say(M(type=M.COMPLETED, payload=b"\xff", txid=message.txid))


async def half_close(shim: RawShim, _message: ChaincodeMessage, _: Answer) -> None:
    await shim.half_close()


async def cut(shim: RawShim, _message: ChaincodeMessage, _: Answer) -> None:
    shim.cut()


async def say_nonsense(shim: RawShim, _message: ChaincodeMessage, _: Answer) -> None:
    await shim.say(b"\xff")


async def cancel(_shim: RawShim, _message: ChaincodeMessage, answer: Answer) -> None:
    answer.cancel()


async def call_itself(shim: RawShim, message: ChaincodeMessage, _: Answer) -> None:
    await shim.call(CHAINCODE, message)


@pytest.mark.parametrize(
    "end",
    [
        complete,
        refuse,
        fail,
        write_badly,
        answer_garbage,
        half_close,
        cut,
        say_nonsense,
        cancel,
        call_itself,
    ],
)
async def test_it_comes_back(endorsing: Endorsing, dial: Dial, end: End) -> None:
    await endorsing.peer.commit(CHAINCODE, {f"k{number:04}": b"v" for number in range(101)})
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    _, answer = await endorsing.propose(b"x")
    message = await shim.hear()
    # An open range must not hold it.
    await shim.ask(M.GET_STATE_BY_RANGE, GetStateByRange(startKey="k"), message)
    assert snapshots() == 1
    await end(shim, message, answer)
    await asyncio.gather(answer, return_exceptions=True)
    async with asyncio.timeout(PATIENCE):
        while snapshots():
            await asyncio.sleep(0.001)


async def test_it_comes_back_from_a_chaincode_that_does_not_answer(
    start_endorsing: StartEndorsing, dial: Dial
) -> None:
    endorsing = await start_endorsing(execute_timeout=0.05)
    await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    response = (await endorsing.send(endorsing.sign(b"x"))).response
    assert (response.status, "chaincode.executetimeout" in response.message) == (500, True)
    assert snapshots() == 0


async def test_a_proposal_that_waits_for_its_chaincode_holds_none(
    endorsing: Endorsing, dial: Dial
) -> None:
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    await shim.half_close()
    await shim.status()
    _, answer = await endorsing.propose(b"x")
    async with asyncio.timeout(PATIENCE):
        while not endorsing.peer.registry.waiting(CHAINCODE):
            await asyncio.sleep(0.001)
    assert snapshots() == 0
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    await shim.complete(await shim.hear())
    assert (await answer).response.status == 200


async def test_when_none_is_left_a_proposal_is_refused(
    start_endorsing: StartEndorsing, dial: Dial
) -> None:
    endorsing = await start_endorsing(max_simulations=1)
    shim = await dial(endorsing.peer, f"{CHAINCODE}:1.0")
    _, answer = await endorsing.propose(b"x")
    message = await shim.hear()
    code, details = await endorsing.refusal(endorsing.sign(b"y"))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "ledger.maxSimulations" in details
    # What needs no snapshot still works.
    asked = endorsing.sign(b"GetChannels", chaincode="cscc")
    assert (await endorsing.send(asked)).response.status == 200
    await shim.complete(message)
    assert (await answer).response.status == 200
    _, answer = await endorsing.propose(b"z")
    await shim.complete(await shim.hear())
    assert (await answer).response.status == 200
