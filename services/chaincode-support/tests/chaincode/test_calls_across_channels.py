"""A chaincode calls one on another channel: it reads what is there, and writes nothing."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from rawshim import CHANNEL, Dial, Peer, RawShim, StartPeer, commit, refusal
from testchannel import Network

from chaincode_support.chaincode.errors import ChaincodeFailure
from chaincode_support.chaincode.support import Execution
from chaincode_support.channel import Channel
from chaincode_support.ledger import Ledger
from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil.config_block import open_config
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_response_pb2 import Response

M = ChaincodeMessage
OTHER = "otherchannel"


@dataclass
class Channels:
    """A peer of two channels, and a chaincode a that runs on the first."""

    peer: Peer
    other: Ledger
    network: Network
    a: RawShim

    def execute(
        self, txid: str = "tx", creator: SigningIdentity | None = None
    ) -> "asyncio.Task[Execution]":
        creator = creator or self.network.client
        return asyncio.create_task(
            self.peer.execute("a", txid, b"invoke", creator=creator.serialized)
        )


def snapshots() -> float:
    """How many the other channel has given out."""
    return REGISTRY.get_sample_value("ledger_simulations_in_use", {"channel": OTHER}) or 0


def found(answer: ChaincodeMessage) -> Response:
    """What the called chaincode returned."""
    assert answer.type == M.RESPONSE, answer
    return Response.FromString(M.FromString(answer.payload).payload)


@pytest.fixture
async def channels(
    start_peer: StartPeer, dial: Dial, network: Network, tmp_path: Path
) -> AsyncIterator[Channels]:
    configuration = open_config(network.genesis())
    other = Ledger.open(tmp_path / "other", OTHER, max_simulations=2)
    served = {OTHER: Channel(OTHER, other, configuration.msps, configuration.policies)}
    peer = await start_peer(channels=served)
    served[CHANNEL] = Channel(CHANNEL, peer.ledger, configuration.msps, configuration.policies)
    await peer.commit("b", {"k": b"here"})
    there = kv_rwset_pb2.KVWrite(key="k", value=b"there")
    await commit(other, "b", kv_rwset_pb2.KVRWSet(writes=[there]))
    yield Channels(peer, other, network, await dial(peer, "a:1.0"))
    other.close()


async def test_it_reads_there_and_its_writes_are_dropped(channels: Channels, dial: Dial) -> None:
    a, b = channels.a, await dial(channels.peer, "b:1.0")
    running = channels.execute()
    message = await a.hear()
    await a.put("mine", b"1", message)
    await a.call(f"b:1.0/{OTHER}", message)
    theirs = await b.hear()
    assert (theirs.txid, theirs.channel_id) == ("tx", OTHER)
    assert (await b.get("k", theirs)).payload == b"there"
    assert (await b.put("k", b"2", theirs)).type == M.RESPONSE
    assert snapshots() == 1
    await b.complete(theirs, result=b"read")
    assert found(await a.hear()) == Response(status=200, payload=b"read")
    assert snapshots() == 0
    await a.complete(message)
    assert (await running).response.status == 200
    # Neither its reads nor its writes are the transaction's.
    assert {name: len(rwset.reads) for name, rwset in channels.peer.results().items()} == {"a": 0}
    assert channels.peer.writes() == {"mine": b"1"}


async def test_the_snapshot_there_is_of_the_call(channels: Channels, dial: Dial) -> None:
    a, b = channels.a, await dial(channels.peer, "b:1.0")
    running = channels.execute()
    message = await a.hear()
    await a.call(f"b/{OTHER}", message)
    theirs = await b.hear()
    later = kv_rwset_pb2.KVWrite(key="k", value=b"later")
    await commit(channels.other, "b", kv_rwset_pb2.KVRWSet(writes=[later]))
    assert (await b.get("k", theirs)).payload == b"there"
    await b.complete(theirs)
    await a.hear()
    await a.call(f"b/{OTHER}", message)
    theirs = await b.hear()
    assert (await b.get("k", theirs)).payload == b"later"
    await b.complete(theirs)
    await a.hear()
    await a.complete(message)
    assert (await running).response.status == 200


async def test_a_chaincode_may_call_itself_on_another_channel(channels: Channels) -> None:
    a = channels.a
    running = channels.execute()
    message = await a.hear()
    await a.call(f"a/{OTHER}", message)
    theirs = await a.hear()
    assert (theirs.txid, theirs.channel_id) == (message.txid, OTHER)
    # The channel tells the two of one id apart.
    assert (await a.put("there", b"1", theirs)).channel_id == OTHER
    assert "has not been answered yet" in refusal(await a.get("k", message))
    await a.complete(theirs, result=b"inner")
    assert found(await a.hear()).payload == b"inner"
    await a.put("here", b"1", message)
    await a.complete(message, result=b"outer")
    assert (await running).response.payload == b"outer"
    assert channels.peer.writes() == {"here": b"1"}


async def test_what_is_called_there_may_call_on_there(channels: Channels, dial: Dial) -> None:
    a, b, c = channels.a, await dial(channels.peer, "b:1.0"), await dial(channels.peer, "c:1.0")
    running = channels.execute()
    message = await a.hear()
    await a.call(f"b/{OTHER}", message)
    second = await b.hear()
    await b.call("c", second)
    third = await c.hear()
    assert third.channel_id == OTHER
    assert snapshots() == 1
    await c.put("k", b"1", third)
    await c.complete(third)
    assert found(await b.hear()).status == 200
    await b.call(f"a/{CHANNEL}", second)
    assert f"already runs chaincode a on channel {CHANNEL}" in refusal(await b.hear())
    assert M.FromString((await a.hear()).payload).type == M.ERROR
    await a.complete(message)
    assert (await running).response.status == 200
    assert channels.peer.writes() == {}
    assert snapshots() == 0


async def test_whoever_may_not_write_there_is_refused(channels: Channels, dial: Dial) -> None:
    a = channels.a
    await dial(channels.peer, "b:1.0")
    running = channels.execute(creator=channels.network.orderer)
    message = await a.hear()
    await a.call(f"b/{OTHER}", message)
    sentence = refusal(await a.hear())
    assert f"access denied: channel [{OTHER}]: " in sentence
    assert "does not satisfy the policy /Channel/Application/Writers" in sentence
    with pytest.raises(ChaincodeFailure, match="access denied"):
        await running
    assert snapshots() == 0


async def test_whom_that_channel_does_not_know_is_refused(channels: Channels, dial: Dial) -> None:
    a = channels.a
    await dial(channels.peer, "b:1.0")
    running = channels.execute(creator=channels.network.stranger)
    message = await a.hear()
    await a.call(f"b/{OTHER}", message)
    sentence = refusal(await a.hear())
    assert f"access denied: channel [{OTHER}]: " in sentence
    assert "OtherMSP" in sentence
    with pytest.raises(ChaincodeFailure):
        await running


async def test_an_unknown_channel_says_which_there_are(channels: Channels, dial: Dial) -> None:
    a = channels.a
    await dial(channels.peer, "b:1.0")
    running = channels.execute()
    message = await a.hear()
    await a.call("b/nowhere\n", message)
    assert f"channel 'nowhere\\n' not found: this peer has {CHANNEL}, {OTHER}" in (
        refusal(await a.hear())
    )
    with pytest.raises(ChaincodeFailure):
        await running


async def test_a_channel_that_has_no_snapshot_left_refuses_the_call(
    channels: Channels, dial: Dial
) -> None:
    a, b = channels.a, await dial(channels.peer, "b:1.0")
    first = [channels.execute(f"t{number}") for number in range(3)]
    mine = [await a.hear() for _ in first]
    for message in mine:
        await a.call(f"b/{OTHER}", message)
    refused = await a.hear()
    sentence = refusal(refused)
    assert "ledger.maxSimulations" in sentence
    assert "RESOURCE_EXHAUSTED" in sentence
    for _ in range(2):
        await b.complete(await b.hear())
        assert found(await a.hear()).status == 200
    for message in mine:
        await a.complete(message)
    ended = await asyncio.gather(*first, return_exceptions=True)
    assert [type(each) for each in ended].count(ChaincodeFailure) == 1
    assert snapshots() == 0


async def test_a_caller_that_goes_away_gives_the_snapshot_back(
    channels: Channels, dial: Dial
) -> None:
    a, b = channels.a, await dial(channels.peer, "b:1.0")
    running = channels.execute()
    message = await a.hear()
    await a.call(f"b/{OTHER}", message)
    theirs = await b.hear()
    assert snapshots() == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert refusal(await b.get("k", theirs))
    assert snapshots() == 0
