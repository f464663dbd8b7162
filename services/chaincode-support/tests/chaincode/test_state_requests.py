"""State requests of a running transaction, in the dialects of every shim."""

import pytest
from prometheus_client import REGISTRY
from rawshim import Dial, Peer, StartPeer, keys, query_response, transaction

from chaincode_support.chaincode.errors import ChaincodeFailure
from chaincode_support.ledger.ledger import DEFAULT_MAX_SIMULATION_BYTES
from selvedge_common.comm import ServerConfig
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    DelState,
    GetState,
    GetStateByRange,
    PutState,
    QueryResponse,
    QueryStateClose,
    QueryStateNext,
)

M = ChaincodeMessage
ROOMY = ServerConfig(max_receive_bytes=2 * DEFAULT_MAX_SIMULATION_BYTES)


async def test_a_transaction_carries_its_input_and_ends_with_the_response(
    peer: Peer, dial: Dial
) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        assert message == M(
            type=M.TRANSACTION,
            txid="0123456789abcdef",
            channel_id="mychannel",
            payload=b"\x0a\x06invoke",
        )
        await shim.complete(message)
        execution = await running
        assert (execution.response.status, execution.version) == (200, "1.0")
        assert execution.event is None


async def test_a_missing_key_reads_empty_and_writes_are_not_seen(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        answer = M(type=M.RESPONSE, txid=message.txid, channel_id="mychannel")
        assert await shim.get("a", message) == answer
        assert await shim.put("a", b"1", message) == answer
        assert await shim.get("a", message) == answer
        await shim.complete(message)
        await running
        assert peer.writes() == {"a": b"1"}


async def test_both_dialects_of_get_and_delete(peer: Peer, dial: Dial) -> None:
    await peer.commit("mycc", {"a": b"1", "b": b"2"})
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        old = M(txid=message.txid)
        answer = await shim.ask(M.GET_STATE, b"a", old)
        assert answer == M(type=M.RESPONSE, txid=message.txid, payload=b"1")
        assert (await shim.get("b", message)).payload == b"2"
        deleted = await shim.ask(M.DEL_STATE, b"a", old)
        assert deleted == M(type=M.RESPONSE, txid=message.txid)
        request = DelState(key="b").SerializeToString()
        deleted = await shim.ask(M.DEL_STATE, request, message)
        assert deleted == M(type=M.RESPONSE, txid=message.txid, channel_id="mychannel")
        await shim.complete(message)
        await running
        assert peer.writes() == {"a": b"", "b": b""}


async def test_puts_sent_without_waiting_are_answered_in_order_and_empty(
    peer: Peer, dial: Dial
) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        for number in range(50):
            await shim.say(
                M(
                    type=M.PUT_STATE,
                    txid=message.txid,
                    channel_id=message.channel_id,
                    payload=PutState(key="k", value=b"%d" % number).SerializeToString(),
                )
            )
        for _ in range(50):
            expected = M(type=M.RESPONSE, txid=message.txid, channel_id="mychannel")
            assert await shim.hear() == expected
        await shim.complete(message)
        await running
        assert peer.writes() == {"k": b"49"}


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    [
        (M.PUT_STATE, b"\xff", "the payload (1 bytes) is not a protos.PutState"),
        (M.PUT_STATE, PutState(value=b"v").SerializeToString(), "the key is empty"),
        (M.DEL_STATE, b"\xff", "the payload (1 bytes) is not a protos.DelState"),
        (M.DEL_STATE, DelState().SerializeToString(), "the key is empty"),
        (M.PUT_STATE_METADATA, b"\xff", "the payload (1 bytes) is not a protos.PutStateMetadata"),
        (M.PUT_STATE_METADATA, b"", "the key is empty"),
        (M.PURGE_PRIVATE_DATA, b"\xff", "the payload (1 bytes) is not a protos.PurgePrivateState"),
        (M.PURGE_PRIVATE_DATA, b"", "only private data is purged: name its collection"),
        (M.WRITE_BATCH_STATE, b"\xff", "the payload (1 bytes) is not a protos.WriteBatchState"),
        (M.INVOKE_CHAINCODE, b"\xff", "the payload (1 bytes) is not a protos.ChaincodeSpec"),
    ],
)
async def test_a_failing_write_aborts_the_transaction(
    peer: Peer, dial: Dial, kind: int, payload: bytes, reason: str
) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        answer = await shim.ask(kind, payload, message)
        assert answer.type == M.ERROR
        text = answer.payload.decode()
        name = M.Type.Name(M.Type.ValueType(kind))
        assert text.startswith(f"{name} failed: transaction ID: {message.txid}: {reason}")
        with pytest.raises(ChaincodeFailure, match="transaction returned with failure"):
            await running
        await shim.complete(message)
        assert (await shim.get("a", message)).type == M.ERROR


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    [
        (M.GET_STATE, b"\xff", "the payload (1 bytes) is not a protos.GetState"),
        (M.GET_STATE_BY_RANGE, b"\xff", "is not a protos.GetStateByRange"),
        (
            M.GET_STATE_BY_RANGE,
            GetStateByRange(metadata=b"\xff").SerializeToString(),
            "is not a protos.QueryMetadata",
        ),
        (
            M.QUERY_STATE_NEXT,
            QueryStateNext(id="x").SerializeToString(),
            "query iterator not found",
        ),
        (M.QUERY_STATE_NEXT, b"\xff", "is not a protos.QueryStateNext"),
        (M.QUERY_STATE_CLOSE, b"\xff", "is not a protos.QueryStateClose"),
        (M.GET_QUERY_RESULT, b"\xff", "is not a protos.GetQueryResult"),
        (M.GET_HISTORY_FOR_KEY, b"\xff", "is not a protos.GetHistoryForKey"),
        (M.GET_STATE_METADATA, b"\xff", "is not a protos.GetStateMetadata"),
        (M.GET_PRIVATE_DATA_HASH, b"\xff", "is not a protos.GetState"),
        (M.GET_STATE_MULTIPLE, b"\xff", "is not a protos.GetStateMultiple"),
    ],
)
async def test_a_failing_read_does_not_abort_the_transaction(
    peer: Peer, dial: Dial, kind: int, payload: bytes, reason: str
) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        answer = await shim.ask(kind, payload, message)
        assert answer.type == M.ERROR
        assert reason in answer.payload.decode()
        await shim.complete(message)
        assert (await running).response.status == 200


async def test_a_raw_key_that_is_not_text_is_refused(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        answer = await shim.ask(M.GET_STATE, b"\xff\xfe", M(txid=message.txid))
        assert "the key is not UTF-8" in answer.payload.decode()
        await shim.complete(message)
        await running


@pytest.mark.parametrize(
    ("rows", "pages"),
    [(0, [0]), (1, [1]), (99, [99]), (100, [100]), (101, [100, 1]), (200, [100, 100])],
)
async def test_pages_of_a_range_say_exactly_whether_more_follow(
    peer: Peer, dial: Dial, rows: int, pages: list[int]
) -> None:
    expected = {f"k{number:04}": b"v%d" % number for number in range(rows)}
    await peer.commit("mycc", {**expected, "z": b"outside"})
    await peer.commit("other", {"k0": b"another chaincode's"})
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        request = GetStateByRange(startKey="k", endKey="l").SerializeToString()
        page = query_response(await shim.ask(M.GET_STATE_BY_RANGE, request, message))
        found, sizes = keys(page), [len(page.results)]
        following = QueryStateNext(id=page.id).SerializeToString()
        while page.has_more:
            page = query_response(await shim.ask(M.QUERY_STATE_NEXT, following, message))
            found += keys(page)
            sizes.append(len(page.results))
        assert (found, sizes) == (list(expected), pages)
        ended = await shim.ask(M.QUERY_STATE_NEXT, following, message)
        assert ended.payload.decode().endswith("query iterator not found")
        closed = await shim.ask(
            M.QUERY_STATE_CLOSE, QueryStateClose(id=page.id).SerializeToString(), message
        )
        assert query_response(closed) == QueryResponse(id=page.id)
        await shim.complete(message)
        await running


async def test_a_row_holds_namespace_key_and_value(peer: Peer, dial: Dial) -> None:
    await peer.commit("mycc", {"a": b"1"})
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (_, message):
        request = GetStateByRange(startKey="\x01").SerializeToString()
        page = query_response(await shim.ask(M.GET_STATE_BY_RANGE, request, message))
        assert [row.resultBytes for row in page.results] == [b"\x0a\x04mycc\x12\x01a\x1a\x011"]


async def test_a_page_of_large_values_ends_early_and_loses_nothing(peer: Peer, dial: Dial) -> None:
    await peer.commit("mycc", {f"k{number}": bytes(512 * 1024) for number in range(6)})
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (_, message):
        request = GetStateByRange(startKey="k").SerializeToString()
        page = query_response(await shim.ask(M.GET_STATE_BY_RANGE, request, message))
        assert (len(page.results), page.has_more) == (4, True)
        following = QueryStateNext(id=page.id).SerializeToString()
        rest = query_response(await shim.ask(M.QUERY_STATE_NEXT, following, message))
        assert (keys(rest), rest.has_more) == (["k4", "k5"], False)


async def test_what_a_transaction_writes_is_bounded(start_peer: StartPeer, dial: Dial) -> None:
    peer = await start_peer(server=ROOMY)
    shim = await dial(peer, "mycc:1.0")
    half = bytes(DEFAULT_MAX_SIMULATION_BYTES // 2)
    async with transaction(peer, shim) as (running, message):
        assert (await shim.put("a", half, message)).type == M.RESPONSE
        assert (await shim.put("a", half, message)).type == M.RESPONSE
        refused = await shim.put("b", half, message)
        assert refused.type == M.ERROR
        assert refused.payload.decode() == (
            f"PUT_STATE failed: transaction ID: {message.txid}: RESOURCE_EXHAUSTED: The "
            f"transaction reads and writes more than {DEFAULT_MAX_SIMULATION_BYTES} bytes, the "
            "limit of orderer.batchSize.absoluteMaxBytes, above which none can be ordered: do less "
            "in one transaction."
        )
        with pytest.raises(ChaincodeFailure, match="RESOURCE_EXHAUSTED"):
            await running


@pytest.mark.parametrize("kind", [M.GET_STATE, M.DEL_STATE, M.GET_STATE_BY_RANGE])
async def test_what_a_transaction_names_is_bounded(
    start_peer: StartPeer, dial: Dial, kind: M.Type.ValueType
) -> None:
    peer = await start_peer(server=ROOMY)
    shim = await dial(peer, "mycc:1.0")
    key = "k" * DEFAULT_MAX_SIMULATION_BYTES
    payload = {
        M.GET_STATE: GetState(key=key),
        M.DEL_STATE: DelState(key=key),
        M.GET_STATE_BY_RANGE: GetStateByRange(startKey=key),
    }[kind].SerializeToString()
    async with transaction(peer, shim) as (running, message):
        refused = await shim.ask(kind, payload, message)
        assert refused.type == M.ERROR
        assert "RESOURCE_EXHAUSTED: The transaction reads" in refused.payload.decode()
        if kind == M.DEL_STATE:
            with pytest.raises(ChaincodeFailure, match="RESOURCE_EXHAUSTED"):
                await running
        else:
            await shim.complete(message)
            assert (await running).response.status == 200


async def test_open_queries_of_a_transaction_are_bounded(start_peer: StartPeer, dial: Dial) -> None:
    counter = "chaincode_queries_refused_total"
    before = REGISTRY.get_sample_value(counter)
    peer = await start_peer(max_queries=2)
    await peer.commit("mycc", {f"k{number:04}": b"v" for number in range(101)})
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        request = GetStateByRange(startKey="k").SerializeToString()
        first = query_response(await shim.ask(M.GET_STATE_BY_RANGE, request, message))
        query_response(await shim.ask(M.GET_STATE_BY_RANGE, request, message))
        refused = await shim.ask(M.GET_STATE_BY_RANGE, request, message)
        assert refused.type == M.ERROR
        assert REGISTRY.get_sample_value(counter) == (before or 0) + 1
        assert "RESOURCE_EXHAUSTED" in refused.payload.decode()
        assert "chaincode.limits.queries" in refused.payload.decode()
        close = QueryStateClose(id=first.id).SerializeToString()
        query_response(await shim.ask(M.QUERY_STATE_CLOSE, close, message))
        query_response(await shim.ask(M.GET_STATE_BY_RANGE, request, message))
        await shim.complete(message)
        assert (await running).response.status == 200
