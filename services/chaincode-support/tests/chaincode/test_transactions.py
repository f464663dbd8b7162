"""How transactions end: results, failures, timeouts, lost streams, cancelled callers."""

import asyncio
import contextlib

import grpc
import pytest
from prometheus_client import REGISTRY
from rawshim import CHANNEL, PATIENCE, Dial, Peer, StartPeer

from chaincode_support.chaincode.errors import (
    ChaincodeFailure,
    ExecuteTimeout,
    LaunchTimeout,
    MessageTooLarge,
    StreamTerminated,
    TooManyTransactions,
    TooManyWaiting,
    TransactionRunning,
    UnknownChaincode,
)
from chaincode_support.chaincode.executor import Transaction
from selvedge_common.comm import ServerConfig, StreamConfig
from selvedge_protos.peer.chaincode_event_pb2 import ChaincodeEvent
from selvedge_protos.peer.chaincode_pb2 import ChaincodeInput
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage, GetStateByRange

M = ChaincodeMessage


def running_on(peer: Peer, name: str = "mycc") -> int:
    return sum(executor.running for executor in peer.registry.replicas(name))


async def test_the_event_s_chaincode_and_txid_are_the_peer_s_to_say(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc", "tx"))
    message = await shim.hear()
    event = ChaincodeEvent(chaincode_id="forged", tx_id="forged", event_name="e", payload=b"p")
    await shim.complete(message, event=event)
    assert (await running).event == ChaincodeEvent(
        chaincode_id="mycc", tx_id="tx", event_name="e", payload=b"p"
    )


async def test_error_and_an_unreadable_response_fail_the_transaction(
    peer: Peer, dial: Dial
) -> None:
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    message = await shim.hear()
    await shim.say(M(type=M.ERROR, payload=b"no luck", txid=message.txid))
    with pytest.raises(ChaincodeFailure, match="transaction returned with failure: no luck"):
        await running
    running = asyncio.create_task(peer.execute("mycc"))
    message = await shim.hear()
    await shim.say(M(type=M.COMPLETED, payload=b"\xff", txid=message.txid))
    with pytest.raises(ChaincodeFailure, match=r"not a protos\.Response"):
        await running


async def test_an_answer_given_twice_counts_once(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    message = await shim.hear()
    await shim.complete(message, status=201)
    await shim.complete(message, status=500)
    assert (await running).response.status == 201
    running = asyncio.create_task(peer.execute("mycc", "t2"))
    await shim.complete(await shim.hear())
    assert (await running).response.status == 200


async def test_another_chaincode_s_transaction_is_out_of_reach(peer: Peer, dial: Dial) -> None:
    victim, hostile = await dial(peer, "mycc:1.0"), await dial(peer, "hostile:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    message = await victim.hear()
    await hostile.complete(message, status=500)
    assert (await hostile.put("a", b"forged", message)).type == M.ERROR
    await victim.complete(message)
    assert (await running).response.status == 200
    assert peer.writes() == {}


async def test_no_answer_ends_with_a_timeout_that_frees_the_transaction(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(execute_timeout=0.05)
    shim = await dial(peer, "mycc:1.0")
    with pytest.raises(ExecuteTimeout, match=r"mycc:1\.0 did not answer .*executetimeout"):
        await peer.execute("mycc")
    assert running_on(peer) == 0
    message = await shim.hear()
    await shim.complete(message)
    assert (await shim.get("a", message)).type == M.ERROR


@pytest.mark.parametrize("half_close", [True, False])
async def test_a_stream_that_ends_fails_its_transactions_at_once(
    peer: Peer, dial: Dial, half_close: bool
) -> None:
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    await shim.hear()
    if half_close:
        await shim.half_close()
    else:
        shim.cut()
    async with asyncio.timeout(5):
        with pytest.raises(StreamTerminated, match=r"chaincode mycc:1\.0 left the transaction"):
            await running


async def test_a_refused_message_is_the_cause_its_transactions_fail_with(
    peer: Peer, dial: Dial
) -> None:
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    await shim.hear()
    await shim.say(M(type=M.READY))
    with pytest.raises(StreamTerminated, match=r"cannot handle message \(READY\)"):
        await running


async def test_a_cancelled_caller_frees_transaction_and_queries_at_once(
    peer: Peer, dial: Dial
) -> None:
    await peer.commit("mycc", {f"k{number:04}": b"v" for number in range(150)})
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    message = await shim.hear()
    request = GetStateByRange(startKey="k").SerializeToString()
    await shim.ask(M.GET_STATE_BY_RANGE, request, message)
    context = peer.stream().transactions.get("mychannel", message.txid)
    assert context is not None
    assert len(context.queries) == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (running_on(peer), len(context.queries)) == (0, 0)
    assert (await shim.get("a", message)).type == M.ERROR


async def test_the_same_transaction_cannot_run_twice(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc", "tx"))
    message = await shim.hear()
    with pytest.raises(TransactionRunning, match="tx already runs"):
        await peer.execute("mycc", "tx")
    await shim.complete(message)
    assert (await running).response.status == 200


async def test_transactions_of_a_stream_are_bounded(start_peer: StartPeer, dial: Dial) -> None:
    counter = "chaincode_transactions_refused_total"
    before = REGISTRY.get_sample_value(counter)
    peer = await start_peer(max_transactions=1)
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc", "t1"))
    message = await shim.hear()
    with pytest.raises(TooManyTransactions, match=r"chaincode\.limits\.transactions"):
        await peer.execute("mycc", "t2")
    assert REGISTRY.get_sample_value(counter) == (before or 0) + 1
    await shim.complete(message)
    await running


async def test_an_unknown_chaincode_is_refused_at_once_and_says_how_to_start_it(
    peer: Peer,
) -> None:
    with pytest.raises(UnknownChaincode, match=r"CORE_CHAINCODE_ID_NAME=nobody:1\.0") as refusal:
        await peer.execute("nobody")
    assert peer.address in str(refusal.value)


async def test_a_chaincode_that_was_here_is_waited_for(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    await shim.half_close()
    await shim.status()
    running = asyncio.create_task(peer.execute("mycc"))
    shim = await dial(peer, "mycc:1.1")
    await shim.complete(await shim.hear())
    assert (await running).version == "1.1"


async def test_whoever_waited_for_a_stream_that_has_just_ended_is_told_at_once(
    peer: Peer, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = await dial(peer, "mycc:1.0")
    stream = peer.stream()
    # The transport has not said it yet.
    monkeypatch.setattr(type(stream._stream), "closed", property(lambda _: False))
    await shim.half_close()
    async with asyncio.timeout(PATIENCE):
        while peer.registry.next("mycc") is not None:
            await asyncio.sleep(0.001)
    simulator = peer.ledger.simulator("t1")
    late = Transaction(CHANNEL, "t1", "mycc", ChaincodeInput(), simulator)
    with pytest.raises(StreamTerminated, match="its stream has just ended"):
        await stream.execute(late)
    simulator.close()


async def test_a_chaincode_that_does_not_come_back_is_given_up(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(startup_timeout=0.05)
    shim = await dial(peer, "mycc:1.0")
    await shim.half_close()
    await shim.status()
    with pytest.raises(LaunchTimeout, match=r"chaincode\.startuptimeout \(0\.05 s\)"):
        await peer.execute("mycc")


async def test_a_flood_that_is_not_read_ends_only_its_own_stream(
    start_peer: StartPeer, dial: Dial
) -> None:
    bounded = ServerConfig(stream=StreamConfig(max_pending=4 * 1024 * 1024))
    peer = await start_peer(server=bounded)
    await peer.commit("mycc", {"a": bytes(1024 * 1024)})
    other = await dial(peer, "other:1.0")
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    message = await shim.hear()
    flood = M(type=M.GET_STATE, payload=b"a", txid=message.txid)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while not running.done():
            await shim.say(flood)
    with pytest.raises(StreamTerminated):
        await running
    running = asyncio.create_task(peer.execute("other"))
    await other.complete(await other.hear())
    assert (await running).response.status == 200


async def test_a_transaction_too_large_to_be_sent_fails_alone(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(server=ServerConfig(max_send_bytes=100_000), max_pending=200_000)
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc", "t1"))
    message = await shim.hear()
    with pytest.raises(MessageTooLarge, match=r"RESOURCE_EXHAUSTED.* peer\.maxSendMsgSize"):
        await peer.execute("mycc", "t2", bytes(100_000))
    await shim.complete(message)
    assert (await running).response.status == 200


async def test_transactions_that_are_not_read_leave_room_for_answers(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(max_pending=50_000)
    shim = await dial(peer, "mycc:1.0")
    with pytest.raises(MessageTooLarge, match=r"chaincode\.limits\.pendingBytes"):
        await peer.execute("mycc", "t1", bytes(50_000))
    running = asyncio.create_task(peer.execute("mycc", "t2"))
    await shim.complete(await shim.hear())
    assert (await running).response.status == 200


async def test_those_that_wait_for_one_chaincode_are_bounded(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(max_waiting=1)
    shim = await dial(peer, "mycc:1.0")
    await shim.half_close()
    await shim.status()
    waiting = asyncio.create_task(peer.execute("mycc", "t1"))
    while not peer.registry.waiting("mycc"):
        await asyncio.sleep(0)
    with pytest.raises(TooManyWaiting, match="RESOURCE_EXHAUSTED"):
        await peer.execute("mycc", "t2")
    assert not peer.simulators  # nobody who waits holds a snapshot
    shim = await dial(peer, "mycc:1.0")
    await shim.complete(await shim.hear())
    assert (await waiting).response.status == 200
