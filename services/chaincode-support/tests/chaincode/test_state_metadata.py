"""Metadata of keys: what is put, what is read, and what both leave in the read-write set."""

from rawshim import Dial, Peer, RawShim, commit, transaction

from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    GetStateMetadata,
    PutStateMetadata,
    StateMetadata,
    StateMetadataResult,
)

M = ChaincodeMessage
RESPONSE = M(type=M.RESPONSE, txid="0123456789abcdef", channel_id="mychannel")


async def put(shim: RawShim, message: ChaincodeMessage, **entry: bytes) -> ChaincodeMessage:
    ((name, value),) = entry.items()
    request = PutStateMetadata(key="k", metadata=StateMetadata(metakey=name, value=value))
    return await shim.ask(M.PUT_STATE_METADATA, request, message)


async def get(shim: RawShim, message: ChaincodeMessage, key: str) -> dict[str, bytes]:
    answer = await shim.ask(M.GET_STATE_METADATA, GetStateMetadata(key=key), message)
    assert answer.type == M.RESPONSE, answer
    entries = StateMetadataResult.FromString(answer.payload).entries
    return {entry.metakey: entry.value for entry in entries}


async def commit_metadata(peer: Peer, entries: dict[str, bytes]) -> None:
    write = kv_rwset_pb2.KVMetadataWrite(
        key="k",
        entries=[
            kv_rwset_pb2.KVMetadataEntry(name=name, value=entries[name]) for name in sorted(entries)
        ],
    )
    await commit(peer.ledger, "mycc", kv_rwset_pb2.KVRWSet(metadata_writes=[write]))


async def test_metadata_that_was_committed_is_read(peer: Peer, dial: Dial) -> None:
    await peer.commit("mycc", {"k": b"1"})
    await commit_metadata(peer, {"b": b"2", "a": b"1"})
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        assert await get(shim, message, "k") == {"a": b"1", "b": b"2"}
        assert await get(shim, message, "nobody") == {}
        await shim.complete(message)
        await running
        reads = peer.results()["mycc"].reads
        assert [(read.key, read.HasField("version")) for read in reads] == [
            ("k", True),
            ("nobody", False),
        ]


async def test_a_put_replaces_all_that_the_key_had(peer: Peer, dial: Dial) -> None:
    await peer.commit("mycc", {"k": b"1"})
    await commit_metadata(peer, {"old": b"1"})
    shim = await dial(peer, "mycc:1.0")
    async with transaction(peer, shim) as (running, message):
        assert await put(shim, message, first=b"1") == RESPONSE
        assert await put(shim, message, last=b"2") == RESPONSE
        # A transaction does not read its own writes.
        assert await get(shim, message, "k") == {"old": b"1"}
        await shim.complete(message)
        await running
        [write] = peer.results()["mycc"].metadata_writes
        assert (write.key, [(each.name, each.value) for each in write.entries]) == (
            "k",
            [("last", b"2")],
        )


async def test_metadata_of_another_chaincode_s_key_is_out_of_reach(peer: Peer, dial: Dial) -> None:
    await peer.commit("mycc", {"k": b"1"})
    await commit_metadata(peer, {"a": b"1"})
    shim = await dial(peer, "other:1.0")
    async with transaction(peer, shim, "other") as (_, message):
        assert await get(shim, message, "k") == {}
