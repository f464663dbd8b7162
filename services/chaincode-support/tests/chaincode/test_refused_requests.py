"""Requests that are refused leave no trace in their transaction, and end no stream."""

import asyncio

from rawshim import Dial, StartPeer

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
