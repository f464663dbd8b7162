"""Chaincodes that must be initialised: Init first, once for each version, and never for others."""

import asyncio

import pytest
from rawshim import Dial, Peer, RawShim, StartPeer, called, refusal, transaction

from chaincode_support.chaincode.errors import ChaincodeFailure, NotInitialized
from selvedge_protos.peer.chaincode_pb2 import ChaincodeInput
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage

M = ChaincodeMessage
# InitializedKeyName of Fabric's core/chaincode/chaincode_support.go.
KEY = "\x00\U0010ffffinitialized"


@pytest.fixture
async def strict(start_peer: StartPeer) -> Peer:
    """A peer that wants mycc initialised."""
    return await start_peer(init_required=["mycc"])


async def run(
    peer: Peer, shim: RawShim, txid: str, *, is_init: bool, key: str = "k"
) -> ChaincodeMessage:
    """A transaction that writes a key and ends well; the message that began it."""
    running = asyncio.create_task(peer.execute("mycc", txid, b"go", is_init=is_init))
    message = await shim.hear()
    await shim.put(key, b"1", message)
    await shim.complete(message)
    assert (await running).response.status == 200
    return message


async def commit_last(peer: Peer) -> None:
    """What the last transaction wrote becomes the state."""
    await peer.commit("mycc", peer.writes())


async def test_init_is_an_init_message_and_is_recorded_under_fabric_s_key(
    strict: Peer, dial: Dial
) -> None:
    shim = await dial(strict, "mycc:1.7")
    message = await run(strict, shim, "t1", is_init=True)
    assert message.type == M.INIT
    assert ChaincodeInput.FromString(message.payload).args == [b"go"]
    assert strict.writes() == {KEY: b"1.7", "k": b"1"}
    # Who is first is decided when it is committed.
    assert [read.key for read in strict.results()["mycc"].reads] == [KEY]


async def test_invoke_before_init_is_refused_and_works_after_it_is_committed(
    strict: Peer, dial: Dial
) -> None:
    shim = await dial(strict, "mycc:1.0")
    with pytest.raises(NotInitialized, match="has not been initialized for this version"):
        await strict.execute("mycc", "t0")
    await run(strict, shim, "t1", is_init=True)
    with pytest.raises(NotInitialized, match="must call as init first"):
        await strict.execute("mycc", "t2")
    # t1 is the one that is committed.
    await strict.commit("mycc", {KEY: b"1.0"})
    message = await run(strict, shim, "t3", is_init=False)
    assert message.type == M.TRANSACTION
    assert strict.writes() == {"k": b"1"}


async def test_a_second_init_of_a_version_is_refused(strict: Peer, dial: Dial) -> None:
    shim = await dial(strict, "mycc:1.0")
    await run(strict, shim, "t1", is_init=True)
    await commit_last(strict)
    with pytest.raises(NotInitialized, match="is already initialized but called as init"):
        await strict.execute("mycc", "t2", is_init=True)


async def test_each_version_is_initialised_anew(strict: Peer, dial: Dial) -> None:
    shim = await dial(strict, "mycc:1.0")
    await run(strict, shim, "t1", is_init=True)
    await commit_last(strict)
    await shim.half_close()
    await shim.status()
    shim = await dial(strict, "mycc:2.0")
    with pytest.raises(NotInitialized, match=r"submit its Init for version 2\.0"):
        await strict.execute("mycc", "t2")
    await run(strict, shim, "t3", is_init=True)
    await commit_last(strict)
    await run(strict, shim, "t4", is_init=False)


async def test_init_of_a_chaincode_that_needs_none_is_refused(strict: Peer, dial: Dial) -> None:
    shim = await dial(strict, "other:1.0")
    with pytest.raises(NotInitialized, match="'other' does not require initialization"):
        await strict.execute("other", "t1", is_init=True)
    async with transaction(strict, shim, "other") as (running, message):
        assert message.type == M.TRANSACTION
        await shim.complete(message)
        assert (await running).response.status == 200


async def test_a_refused_invocation_never_reaches_the_chaincode(strict: Peer, dial: Dial) -> None:
    shim = await dial(strict, "mycc:1.0")
    with pytest.raises(NotInitialized):
        await strict.execute("mycc", "t1")
    answer = await shim.get("k", M(txid="t1", channel_id="mychannel"))
    assert "No ledger context" in refusal(answer)


async def test_a_called_chaincode_must_be_initialised_too(strict: Peer, dial: Dial) -> None:
    a, callee = await dial(strict, "a:1.0"), await dial(strict, "mycc:1.0")
    async with transaction(strict, a, "a") as (running, message):
        await a.call("mycc", message)
        assert "'mycc' has not been initialized for this version" in refusal(await a.hear())
        with pytest.raises(ChaincodeFailure):
            await running
    async with transaction(strict, a, "a", "t2") as (running, message):
        await a.request(M.INVOKE_CHAINCODE, called("mycc", is_init=True), message)
        theirs = await callee.hear()
        assert theirs.type == M.INIT
        await callee.complete(theirs)
        await a.hear()
        await a.complete(message)
        assert (await running).response.status == 200
        assert strict.writes() == {KEY: b"1.0"}
