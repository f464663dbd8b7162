"""What READY offers to shims of release 3.1: many writes in one message, and many reads."""

import pytest
from rawshim import Dial, Peer, StartPeer, refusal, register, transaction

from chaincode_support.chaincode.errors import ChaincodeFailure
from selvedge_common.comm import ServerConfig
from selvedge_protos.peer.chaincode_pb2 import ChaincodeAdditionalParams
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    GetStateMultiple,
    GetStateMultipleResult,
    StateMetadata,
    WriteBatchState,
    WriteRecord,
)

M = ChaincodeMessage
RESPONSE = M(type=M.RESPONSE, txid="0123456789abcdef", channel_id="mychannel")


def put(key: str, value: bytes) -> WriteRecord:
    return WriteRecord(type=WriteRecord.PUT_STATE, key=key, value=value)


@pytest.mark.parametrize(("writes", "reads"), [(7, 5), (0, 5), (7, 0), (0, 0)])
async def test_ready_offers_what_is_set(
    start_peer: StartPeer, dial: Dial, writes: int, reads: int
) -> None:
    peer = await start_peer(max_write_batch=writes, max_multiple_keys=reads)
    shim = await dial(peer)
    await shim.say(register("mycc:1.0"))
    assert (await shim.hear()).type == M.REGISTERED
    ready = await shim.hear()
    assert ready == M(type=M.READY, payload=ready.payload)
    assert ChaincodeAdditionalParams.FromString(ready.payload) == ChaincodeAdditionalParams(
        use_write_batch=writes > 0,
        max_size_write_batch=writes,
        use_get_multiple_keys=reads > 0,
        max_size_get_multiple_keys=reads,
    )


async def test_a_batch_writes_its_records_in_their_order(peer: Peer, dial: Dial) -> None:
    await peer.commit("mycc", {"gone": b"1", "k": b"0"})
    shim = await dial(peer, "mycc:1.0")
    batch = WriteBatchState(
        rec=[
            put("a", b"1"),
            put("a", b"2"),
            put("b", b"1"),
            WriteRecord(type=WriteRecord.DEL_STATE, key="b"),
            WriteRecord(type=WriteRecord.DEL_STATE, key="gone"),
            WriteRecord(
                type=WriteRecord.PUT_STATE_METADATA,
                key="k",
                metadata=StateMetadata(metakey="m", value=b"v"),
            ),
        ]
    )
    async with transaction(peer, shim) as (running, message):
        assert await shim.ask(M.WRITE_BATCH_STATE, batch, message) == RESPONSE
        await shim.complete(message)
        await running
        assert peer.writes() == {"a": b"2", "b": b"", "gone": b""}
        [metadata] = peer.results()["mycc"].metadata_writes
        assert (metadata.key, metadata.entries[0].value) == ("k", b"v")


async def test_an_empty_batch_writes_nothing(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        assert await shim.ask(M.WRITE_BATCH_STATE, b"", message) == RESPONSE
        await shim.complete(message)
        await running
        assert peer.writes() == {}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (WriteRecord(key="a"), "the batch has a record of the unknown type 0"),
        (
            WriteRecord(type=WriteRecord.Type.ValueType(99), key="a"),
            "the batch has a record of the unknown type 99",
        ),
        (put("", b"1"), "the key is empty"),
        (WriteRecord(type=WriteRecord.DEL_STATE), "the key is empty"),
        (WriteRecord(type=WriteRecord.PUT_STATE_METADATA), "the key is empty"),
        (
            WriteRecord(type=WriteRecord.PURGE_PRIVATE_DATA, key="a"),
            "only private data is purged: name its collection",
        ),
        (
            WriteRecord(type=WriteRecord.PURGE_PRIVATE_DATA, key="a", collection="c"),
            "Private data is not kept by this ledger",
        ),
        (
            WriteRecord(type=WriteRecord.PUT_STATE, key="a", collection="c"),
            "Private data is not kept by this ledger",
        ),
    ],
)
async def test_a_batch_with_a_bad_record_aborts_the_transaction(
    peer: Peer, dial: Dial, record: WriteRecord, reason: str
) -> None:
    shim = await dial(peer, "mycc:1.0")
    batch = WriteBatchState(rec=[put("before", b"1"), record])
    async with transaction(peer, shim) as (running, message):
        refused = await shim.ask(M.WRITE_BATCH_STATE, batch, message)
        assert f"WRITE_BATCH_STATE failed: transaction ID: {message.txid}: {reason}" in (
            refusal(refused)
        )
        with pytest.raises(ChaincodeFailure, match=reason.partition(" ")[0]):
            await running


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (2, "RESOURCE_EXHAUSTED: it has more entries than the 2 that READY offered"),
        (0, "this peer did not offer it (chaincode.runtimeParams.useWriteBatch is off)"),
    ],
)
async def test_a_batch_that_was_not_offered_aborts_the_transaction(
    start_peer: StartPeer, dial: Dial, limit: int, reason: str
) -> None:
    peer = await start_peer(max_write_batch=limit)
    shim = await dial(peer, "mycc:1.0")
    batch = WriteBatchState(rec=[put("a", b"1"), put("b", b"1"), put("c", b"1")])
    async with transaction(peer, shim) as (running, message):
        assert reason in refusal(await shim.ask(M.WRITE_BATCH_STATE, batch, message))
        with pytest.raises(ChaincodeFailure):
            await running


async def test_as_many_as_were_offered_are_taken(start_peer: StartPeer, dial: Dial) -> None:
    peer = await start_peer(max_write_batch=2, max_multiple_keys=2)
    shim = await dial(peer, "mycc:1.0")
    batch = WriteBatchState(rec=[put("a", b"1"), put("b", b"2")])
    async with transaction(peer, shim) as (running, message):
        assert await shim.ask(M.WRITE_BATCH_STATE, batch, message) == RESPONSE
        found = await shim.ask(M.GET_STATE_MULTIPLE, GetStateMultiple(keys=["a", "b"]), message)
        assert found.type == M.RESPONSE
        await shim.complete(message)
        await running
        assert peer.writes() == {"a": b"1", "b": b"2"}


async def test_many_keys_are_read_in_the_order_in_which_they_were_asked_for(
    peer: Peer, dial: Dial
) -> None:
    await peer.commit("mycc", {"a": b"1", "b": b"2"})
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        request = GetStateMultiple(keys=["b", "nobody", "a", "b"])
        found = await shim.ask(M.GET_STATE_MULTIPLE, request, message)
        assert found == M(
            type=M.RESPONSE,
            txid=message.txid,
            channel_id=message.channel_id,
            payload=GetStateMultipleResult(values=[b"2", b"", b"1", b"2"]).SerializeToString(),
        )
        none = await shim.ask(M.GET_STATE_MULTIPLE, b"", message)
        assert none == RESPONSE
        await shim.complete(message)
        await running
        assert [read.key for read in peer.results()["mycc"].reads] == ["a", "b", "nobody"]


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (1, "RESOURCE_EXHAUSTED: it has more entries than the 1 that READY offered"),
        (0, "this peer did not offer it (chaincode.runtimeParams.useGetMultipleKeys is off)"),
    ],
)
async def test_reads_that_were_not_offered_are_refused_and_the_transaction_goes_on(
    start_peer: StartPeer, dial: Dial, limit: int, reason: str
) -> None:
    peer = await start_peer(max_multiple_keys=limit)
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        request = GetStateMultiple(keys=["a", "b"])
        assert reason in refusal(await shim.ask(M.GET_STATE_MULTIPLE, request, message))
        await shim.complete(message)
        assert (await running).response.status == 200
        assert peer.results() == {}


async def test_values_that_fit_no_message_are_refused_and_fewer_are_not(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(server=ServerConfig(max_send_bytes=100_000))
    await peer.commit("mycc", {"a": bytes(60_000), "b": bytes(60_000), "c": b"1"})
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (_, message):
        request = GetStateMultiple(keys=["a", "b", "c"])
        reason = refusal(await shim.ask(M.GET_STATE_MULTIPLE, request, message))
        assert "RESOURCE_EXHAUSTED: the first 2 values have 120000 bytes" in reason
        request = GetStateMultiple(keys=["a", "c"])
        assert (await shim.ask(M.GET_STATE_MULTIPLE, request, message)).type == M.RESPONSE
