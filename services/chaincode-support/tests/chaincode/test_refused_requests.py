"""Requests that are refused leave no trace in their transaction, and end no stream."""

import asyncio

import pytest
from rawshim import Dial, Peer, StartPeer, transaction

from chaincode_support.chaincode.errors import ChaincodeFailure
from chaincode_support.chaincode.shim_requests import REQUESTS
from selvedge_common.comm import ServerConfig
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage as M
from selvedge_protos.peer.chaincode_shim_pb2 import GetStateByRange


async def test_a_refused_range_is_not_one_that_the_transaction_has_read(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(max_queries=1)
    await peer.commit("mycc", {f"k{number:04}": b"v" for number in range(101)})
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    message = await shim.hear()
    for start, answer in (("k", M.RESPONSE), ("a", M.ERROR)):
        request = GetStateByRange(startKey=start).SerializeToString()
        assert (await shim.ask(M.GET_STATE_BY_RANGE, request, message)).type == answer
    await shim.complete(message)
    await running
    results = rwset_pb2.TxReadWriteSet.FromString(peer.simulators[-1].results())
    (read,) = kv_rwset_pb2.KVRWSet.FromString(results.ns_rwset[0].rwset).range_queries_info
    assert read.start_key == "k"


async def test_an_answer_too_large_to_be_sent_is_an_error_and_the_stream_goes_on(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(server=ServerConfig(max_send_bytes=100_000))
    await peer.commit("mycc", {"a": bytes(60_000), "b": bytes(60_000), "c": b"1"})
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    message = await shim.hear()
    request = GetStateByRange(startKey="a").SerializeToString()
    refused = await shim.ask(M.GET_STATE_BY_RANGE, request, message)
    assert refused.type == M.ERROR
    assert b"peer.maxSendMsgSize" in refused.payload
    assert (await shim.get("c", message)).payload == b"1"
    await shim.complete(message)
    assert (await running).response.status == 200


@pytest.mark.parametrize("kind", sorted(REQUESTS))
@pytest.mark.parametrize("payload", [b"", b"\x00", b"\xff", b"\x0a\x01\xff", b"k" * 100_000])
async def test_every_request_is_answered_once_whatever_it_holds(
    peer: Peer, dial: Dial, kind: int, payload: bytes
) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        answer = await shim.ask(kind, payload, message)
        assert answer.type in (M.RESPONSE, M.ERROR)
        assert (answer.txid, answer.channel_id) == (message.txid, message.channel_id)
        # The next answer is the next request's; an aborted transaction is known no more.
        after = await shim.get("k", M(txid="unknown"))
        assert after.txid == "unknown"
        await shim.complete(message)
        ended, _ = await asyncio.wait([running])
        assert ended
        if (failure := running.exception()) is not None:
            assert isinstance(failure, ChaincodeFailure)
            assert (answer.type, REQUESTS[kind].writes) == (M.ERROR, True)
