"""What the peer says of its chaincodes."""

import asyncio
from datetime import UTC, datetime

import pytest
from endorsing import Endorsing
from rawshim import Dial, Peer, StartPeer, transaction

from chaincode_support.chaincode.errors import ChaincodeFailure, ExecuteTimeout
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import Chaincode, Stream

M = ChaincodeMessage


def described(peer: Peer, name: str = "mycc") -> Chaincode:
    [found] = [each for each in peer.support.describe() if each.name == name]
    return found


async def test_a_chaincode_is_told_with_its_stream_and_counts(peer: Peer, dial: Dial) -> None:
    before = datetime.now(UTC)
    shim = await dial(peer, "mycc:1.7")
    async with transaction(peer, shim, txid="t1") as (running, message):
        await shim.complete(message)
        await running
    async with transaction(peer, shim, txid="t2") as (running, message):
        await shim.say(M(type=M.ERROR, payload=b"no luck", txid=message.txid))
        with pytest.raises(ChaincodeFailure):
            await running
    async with transaction(peer, shim, txid="t3") as (running, message):
        found = described(peer)
        assert (found.version, found.running, found.completed, found.failed) == ("1.7", 1, 1, 1)
        assert found.launcher == Chaincode.EXTERNAL
        assert not found.init_required
        assert found.last_error.endswith("no luck")
        assert before <= found.last_error_at.ToDatetime(UTC) <= datetime.now(UTC)
        [stream] = found.streams
        assert (stream.registered_name, stream.state, stream.running) == (
            "mycc:1.7",
            Stream.READY,
            1,
        )
        assert (stream.completed, stream.failed) == (1, 1)
        assert before <= stream.since.ToDatetime(UTC) <= datetime.now(UTC)
        await shim.complete(message)
        await running


async def test_one_that_is_gone_is_still_told_of(start_peer: StartPeer, dial: Dial) -> None:
    peer = await start_peer(init_required=["mycc"])
    shim = await dial(peer, "mycc:1.0")
    await shim.half_close()
    await shim.status()
    found = described(peer)
    assert (found.version, len(found.streams), found.init_required) == ("", 0, True)


async def test_the_states_of_streams(start_peer: StartPeer, dial: Dial) -> None:
    peer = await start_peer(execute_timeout=0.05)
    shim = await dial(peer, "mycc:1.0")
    with pytest.raises(ExecuteTimeout):
        await peer.execute("mycc")
    assert [stream.state for stream in described(peer).streams] == [Stream.UNRESPONSIVE]
    await shim.get("k", await shim.hear())
    assert [stream.state for stream in described(peer).streams] == [Stream.READY]
    running = asyncio.create_task(peer.execute("mycc", "t2"))
    await shim.hear()
    peer.stream().drain()
    assert [stream.state for stream in described(peer).streams] == [Stream.DRAINING]
    with pytest.raises(ExecuteTimeout):
        await running


async def test_system_chaincodes_are_among_them(endorsing: Endorsing) -> None:
    found = endorsing.peer.support.describe()
    assert [(each.name, each.version, each.launcher) for each in found] == [
        ("cscc", "syscc", Chaincode.SYSTEM),
        ("qscc", "syscc", Chaincode.SYSTEM),
    ]
