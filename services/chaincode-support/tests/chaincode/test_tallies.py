"""What the peer counts of each chaincode and each stream, and the failure that it shows last."""

import asyncio
from datetime import UTC, datetime

import grpc
import pytest
from rawshim import Dial, Peer, StartPeer, register, transaction

from chaincode_support.chaincode.errors import (
    ChaincodeFailure,
    ExecuteTimeout,
    LaunchTimeout,
    NotInitialized,
    StreamTerminated,
    UnknownChaincode,
)
from chaincode_support.chaincode.tally import Tally
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage

M = ChaincodeMessage


def counts(tally: Tally) -> tuple[int, int]:
    return tally.completed, tally.failed


async def test_completed_transactions_are_counted_for_both(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    for number, status in enumerate((200, 500)):
        async with transaction(peer, shim, txid=f"t{number}") as (running, message):
            await shim.complete(message, status)
            await running
    assert counts(peer.registry.tally("mycc")) == counts(peer.stream().tally) == (2, 0)
    assert peer.registry.tally("mycc").last_error == ""
    assert peer.registry.tally("mycc").last_error_at is None


async def test_a_failure_is_counted_and_shown_with_its_time(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    before = datetime.now(UTC)
    async with transaction(peer, shim) as (running, message):
        await shim.say(M(type=M.ERROR, payload=b"no luck", txid=message.txid))
        with pytest.raises(ChaincodeFailure):
            await running
    for tally in (peer.registry.tally("mycc"), peer.stream().tally):
        assert counts(tally) == (0, 1)
        assert tally.last_error == "transaction returned with failure: no luck"
        assert tally.last_error_at is not None
        assert before <= tally.last_error_at <= datetime.now(UTC)


async def test_a_failure_is_shown_in_part_when_it_is_long(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        await shim.say(M(type=M.ERROR, payload=b"\xff" * 100_000, txid=message.txid))
        with pytest.raises(ChaincodeFailure):
            await running
    assert len(peer.registry.tally("mycc").last_error) == 2000


async def test_what_is_no_response_is_a_failure(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        await shim.say(M(type=M.COMPLETED, payload=b"\xff", txid=message.txid))
        with pytest.raises(ChaincodeFailure):
            await running
    assert counts(peer.registry.tally("mycc")) == counts(peer.stream().tally) == (0, 1)
    assert "not a protos.Response" in peer.registry.tally("mycc").last_error


async def test_no_answer_in_time_is_a_failure(start_peer: StartPeer, dial: Dial) -> None:
    peer = await start_peer(execute_timeout=0.05)
    await dial(peer, "mycc:1.0")
    with pytest.raises(ExecuteTimeout):
        await peer.execute("mycc")
    assert counts(peer.registry.tally("mycc")) == counts(peer.stream().tally) == (0, 1)
    assert "chaincode.executetimeout" in peer.registry.tally("mycc").last_error


async def test_a_stream_that_ends_is_a_failure_of_each_transaction_and_the_tally_stays(
    peer: Peer, dial: Dial
) -> None:
    shim = await dial(peer, "mycc:1.0")
    running = [asyncio.create_task(peer.execute("mycc", f"t{number}")) for number in range(3)]
    for _ in running:
        await shim.hear()
    shim.cut()
    ended = await asyncio.gather(*running, return_exceptions=True)
    assert [type(each) for each in ended] == [StreamTerminated] * 3
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim, txid="t9") as (again, message):
        await shim.complete(message)
        await again
    assert counts(peer.registry.tally("mycc")) == (1, 3)
    assert counts(peer.stream().tally) == (1, 0)


async def test_a_caller_and_its_callee_are_counted_each(peer: Peer, dial: Dial) -> None:
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        theirs = await b.hear()
        await b.say(M(type=M.ERROR, payload=b"no luck", txid=theirs.txid))
        await a.hear()
        await a.complete(message)
        await running
    assert counts(peer.registry.tally("a")) == (1, 0)
    assert counts(peer.registry.tally("b")) == (0, 1)


async def test_a_refused_invocation_is_a_failure(start_peer: StartPeer, dial: Dial) -> None:
    peer = await start_peer(init_required=["mycc"])
    await dial(peer, "mycc:1.0")
    with pytest.raises(NotInitialized):
        await peer.execute("mycc")
    assert counts(peer.registry.tally("mycc")) == (0, 1)


async def test_refused_streams_are_shown_and_count_nothing(peer: Peer, dial: Dial) -> None:
    await dial(peer, "mycc:1.0")
    second = await dial(peer)
    await second.say(register("mycc:2.0"))
    assert (await second.status())[0] is grpc.StatusCode.ALREADY_EXISTS
    tally = peer.registry.tally("mycc")
    assert counts(tally) == (0, 0)
    assert "Duplicate chaincodeID error" in tally.last_error


async def test_a_chaincode_that_did_not_come_back_is_shown(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(startup_timeout=0.05)
    shim = await dial(peer, "mycc:1.0")
    await shim.half_close()
    await shim.status()
    with pytest.raises(LaunchTimeout):
        await peer.execute("mycc")
    tally = peer.registry.tally("mycc")
    assert counts(tally) == (0, 0)
    assert "chaincode.startuptimeout" in tally.last_error


async def test_names_that_nobody_registered_are_not_kept(peer: Peer) -> None:
    for number in range(100):
        with pytest.raises(UnknownChaincode):
            await peer.execute(f"nobody{number}")
    assert peer.registry.names() == []
    assert not peer.registry._tallies
