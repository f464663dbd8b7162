"""When a caller or its callee ends too early, both are freed, and nobody else notices."""

import asyncio
from collections.abc import Callable

import grpc
import pytest
from rawshim import PATIENCE, Dial, Peer, RawShim, StartPeer, refusal

from chaincode_support.chaincode.errors import (
    ChaincodeFailure,
    ExecuteTimeout,
    StreamTerminated,
)
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage, GetStateByRange

M = ChaincodeMessage


async def until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not reached():
            await asyncio.sleep(0.001)


def running_on(peer: Peer, name: str) -> int:
    return sum(executor.running for executor in peer.registry.replicas(name))


async def still_serves(peer: Peer, shim: RawShim, name: str) -> None:
    """Another transaction of the chaincode comes to its end."""
    again = asyncio.create_task(peer.execute(name, "again"))
    await shim.complete(await shim.hear())
    assert (await again).response.status == 200


async def test_a_cancelled_caller_frees_the_callee_and_its_queries(peer: Peer, dial: Dial) -> None:
    await peer.commit("b", {f"k{number:04}": b"v" for number in range(101)})
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    running = asyncio.create_task(peer.execute("a"))
    await a.call("b", await a.hear())
    theirs = await b.hear()
    await b.ask(M.GET_STATE_BY_RANGE, GetStateByRange(startKey="k"), theirs)
    context = peer.stream("b").transactions.get(theirs.channel_id, theirs.txid)
    assert context is not None
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "No ledger context" in refusal(await b.get("k", theirs))
    assert len(context.queries) == running_on(peer, "a") == running_on(peer, "b") == 0
    await still_serves(peer, a, "a")
    await still_serves(peer, b, "b")


async def test_a_caller_that_takes_too_long_frees_the_callee(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(execute_timeout=0.5)
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    running = asyncio.create_task(peer.execute("a"))
    await a.call("b", await a.hear())
    theirs = await b.hear()
    with pytest.raises(ExecuteTimeout):
        await running
    await until(lambda: not running_on(peer, "b"))
    assert "No ledger context" in refusal(await b.get("k", theirs))


async def test_a_caller_that_waits_for_its_callee_is_not_the_one_that_is_silent(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(execute_timeout=0.5)
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    running = asyncio.create_task(peer.execute("a"))
    await a.call("b", await a.hear())
    await b.hear()
    with pytest.raises(ExecuteTimeout, match="was waiting for chaincode b, which it called"):
        await running
    assert peer.stream("a").responsive


@pytest.mark.parametrize("half_close", [True, False])
async def test_a_caller_whose_stream_ends_frees_the_callee(
    peer: Peer, dial: Dial, half_close: bool
) -> None:
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    running = asyncio.create_task(peer.execute("a"))
    await a.call("b", await a.hear())
    theirs = await b.hear()
    if half_close:
        await a.half_close()
    else:
        a.cut()
    with pytest.raises(StreamTerminated, match=r"a:1\.0 left the transaction unfinished"):
        await running
    await until(lambda: not running_on(peer, "b"))
    assert "No ledger context" in refusal(await b.get("k", theirs))
    await still_serves(peer, b, "b")


@pytest.mark.parametrize("half_close", [True, False])
async def test_a_callee_whose_stream_ends_aborts_its_caller_at_once(
    peer: Peer, dial: Dial, half_close: bool
) -> None:
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    running = asyncio.create_task(peer.execute("a"))
    await a.call("b", await a.hear())
    await b.hear()
    if half_close:
        await b.half_close()
    else:
        b.cut()
    reason = refusal(await a.hear())
    assert "execute failed: chaincode stream terminated: chaincode b:1.0 left the" in reason
    with pytest.raises(ChaincodeFailure, match=r"b:1\.0 left the transaction unfinished"):
        await running
    await still_serves(peer, a, "a")


async def test_the_end_of_the_third_is_told_to_the_second_and_the_first_goes_on(
    peer: Peer, dial: Dial
) -> None:
    a, b, c = [await dial(peer, f"{name}:1.0") for name in "abc"]
    running = asyncio.create_task(peer.execute("a"))
    message = await a.hear()
    await a.call("b", message)
    await b.call("c", await b.hear())
    await c.hear()
    c.cut()
    assert "c:1.0 left the transaction unfinished" in refusal(await b.hear())
    answer = await a.hear()
    assert (answer.type, M.FromString(answer.payload).type) == (M.RESPONSE, M.ERROR)
    await a.complete(message)
    assert (await running).response.status == 200


async def test_a_caller_that_completes_before_its_answer_frees_the_callee(
    peer: Peer, dial: Dial
) -> None:
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    running = asyncio.create_task(peer.execute("a"))
    message = await a.hear()
    await a.call("b", message)
    theirs = await b.hear()
    await b.put("k", b"half done", theirs)
    await a.complete(message, status=201)
    assert (await running).response.status == 201
    await until(lambda: not running_on(peer, "b"))
    assert "No ledger context" in refusal(await b.get("k", theirs))
    await b.complete(theirs)
    # The next answer is the next transaction's.
    await still_serves(peer, a, "a")


async def test_a_call_and_the_end_that_follows_it_at_once_leave_nothing_behind(
    peer: Peer, dial: Dial
) -> None:
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    for number in range(20):
        running = asyncio.create_task(peer.execute("a", f"t{number}"))
        message = await a.hear()
        await a.call("b", message)
        await a.complete(message)
        assert (await running).response.status == 200
    await until(lambda: not running_on(peer, "b"))
    await still_serves(peer, a, "a")
    for _ in range(20):
        await b.hear()
    assert "No ledger context" in refusal(await b.get("k", M(txid="t0", channel_id="mychannel")))


async def test_a_caller_that_is_waiting_for_its_callee_to_come_back_can_be_cancelled(
    peer: Peer, dial: Dial
) -> None:
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    await b.half_close()
    assert (await b.status())[0] is grpc.StatusCode.OK
    running = asyncio.create_task(peer.execute("a"))
    await a.call("b", await a.hear())
    await until(lambda: peer.registry.waiting("b"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: not peer.registry.waiting("b"))
    b = await dial(peer, "b:1.0")
    await still_serves(peer, b, "b")
