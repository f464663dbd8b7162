"""What the states of a chaincode stream allow, and how refusals end it."""

import asyncio
import re

import grpc
import pytest
from rawshim import Dial, Peer, StartPeer, register

from chaincode_support.chaincode.errors import StreamTerminated
from selvedge_common.comm import ServerConfig
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage, GetState

M = ChaincodeMessage


def registration(name: str) -> ChaincodeMessage:
    return M(type=M.REGISTER, payload=b"\x12" + bytes([len(name)]) + name.encode())


async def test_register_is_answered_by_registered_and_ready(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer)
    await shim.say(registration("mycc:1.0"))
    assert await shim.hear() == M(type=M.REGISTERED)
    assert (await shim.hear()).type == M.READY
    assert [(stream.name, stream.version) for stream in peer.registry.replicas("mycc")] == [
        ("mycc", "1.0")
    ]


@pytest.mark.parametrize(
    "first", [M.READY, M.GET_STATE, M.COMPLETED, M.KEEPALIVE, M.ERROR, M.UNDEFINED, 99]
)
async def test_anything_but_register_first_ends_the_stream(
    peer: Peer, dial: Dial, first: int
) -> None:
    shim = await dial(peer)
    await shim.say(M(type=M.Type.ValueType(first), payload=b"abc"))
    code, details = await shim.status()
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    name = "unknown type 99" if first == 99 else M.Type.Name(M.Type.ValueType(first))
    assert f"({name}) with payload size (3) while in state: created" in details


@pytest.mark.parametrize("kind", [M.REGISTER, M.REGISTERED, M.READY, M.UNDEFINED, 12, 99])
async def test_what_ready_does_not_allow_ends_that_stream_only(
    peer: Peer, dial: Dial, kind: int
) -> None:
    other = await dial(peer, "other:1.0")
    shim = await dial(peer, "mycc:1.0")
    await shim.say(M(type=M.Type.ValueType(kind)))
    code, details = await shim.status()
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "payload size (0) while in state: ready" in details
    answer = await other.ask(M.GET_STATE, b"k", M(txid="unknown"))
    assert answer.type == M.ERROR


@pytest.mark.parametrize("kind", [M.INIT, M.TRANSACTION, M.RESPONSE, M.KEEPALIVE])
async def test_ready_ignores_what_means_nothing_from_a_chaincode(
    peer: Peer, dial: Dial, kind: int
) -> None:
    shim = await dial(peer, "mycc:1.0")
    await shim.say(M(type=M.Type.ValueType(kind), payload=b"x", txid="t"))
    assert (await shim.ask(M.GET_STATE, b"k", M(txid="t"))).type == M.ERROR


@pytest.mark.parametrize("kind", [M.COMPLETED, M.ERROR])
async def test_the_end_of_an_unknown_transaction_is_ignored(
    peer: Peer, dial: Dial, kind: int
) -> None:
    shim = await dial(peer, "mycc:1.0")
    await shim.say(M(type=M.Type.ValueType(kind), txid="nobody"))
    running = asyncio.create_task(peer.execute("mycc"))
    await shim.complete(await shim.hear())
    assert (await running).response.status == 200


async def test_garbage_ends_the_stream(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer)
    await shim.say(b"\xff\xff\xff")
    code, details = await shim.status()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "what was sent (3 bytes) is not a protos.ChaincodeMessage" in details


async def test_register_that_does_not_parse_says_so(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer)
    await shim.say(M(type=M.REGISTER, payload=b"\xff\xff"))
    code, details = await shim.status()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "the payload of REGISTER (2 bytes) is not a protos.ChaincodeID" in details


@pytest.mark.parametrize("name", ["", ":1.0", "my cc", "a/b", "-x", "x" * 100 + "\n"])
async def test_register_with_a_bad_name_says_what_a_name_is(
    peer: Peer, dial: Dial, name: str
) -> None:
    shim = await dial(peer)
    await shim.say(registration(name))
    code, details = await shim.status()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "set CORE_CHAINCODE_ID_NAME" in details


async def test_a_duplicate_is_refused_and_the_first_goes_on(peer: Peer, dial: Dial) -> None:
    first = await dial(peer, "mycc:1.0")
    second = await dial(peer)
    await second.say(registration("mycc:2.0"))
    code, details = await second.status()
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert 'Duplicate chaincodeID error: name:"mycc:2.0"' in details
    assert "registered as mycc:1.0" in details
    running = asyncio.create_task(peer.execute("mycc"))
    await first.complete(await first.hear())
    assert (await running).response.status == 200


async def test_half_close_ends_the_stream_normally_and_frees_the_name(
    peer: Peer, dial: Dial
) -> None:
    shim = await dial(peer, "mycc:1.0")
    await shim.half_close()
    assert await shim.status() == (grpc.StatusCode.OK, "")
    assert peer.registry.next("mycc") is None
    await dial(peer, "mycc:1.0")


async def test_a_stream_that_never_registers_is_ended(start_peer: StartPeer, dial: Dial) -> None:
    peer = await start_peer(register_timeout=0.05)
    shim = await dial(peer)
    code, details = await shim.status()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "chaincode.registerTimeout" in details


async def test_streams_above_the_limit_are_refused(start_peer: StartPeer, dial: Dial) -> None:
    peer = await start_peer(max_streams=1)
    first = await dial(peer, "one:1.0")
    second = await dial(peer)
    code, details = await second.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "chaincode.limits.streams" in details
    assert (await first.ask(M.GET_STATE, b"k", M(txid="t"))).type == M.ERROR


async def test_keepalive_breaks_the_silence_and_its_echo_is_ignored(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(keepalive=0.05)
    shim = await dial(peer, "mycc:1.0")
    for _ in range(2):
        assert await shim.hear() == M(type=M.KEEPALIVE)
        await shim.say(M(type=M.KEEPALIVE))


async def test_an_unknown_txid_is_answered_with_it_and_the_stream_stays(
    peer: Peer, dial: Dial
) -> None:
    shim = await dial(peer, "mycc:1.0")
    payload = GetState(key="a").SerializeToString()
    answer = await shim.ask(M.GET_STATE, payload, M(txid="0123456789ab", channel_id="mychannel"))
    assert answer == M(
        type=M.ERROR,
        txid="0123456789ab",
        channel_id="mychannel",
        payload=b"[01234567]No ledger context for GetState. Sending ERROR",
    )
    assert (await shim.ask(M.PUT_STATE, b"", M(txid="t"))).type == M.ERROR


async def test_streams_that_have_not_registered_have_a_limit_of_their_own(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(max_unregistered=1)
    await dial(peer, "one:1.0")
    # Either of the two may be the first that the peer sees.
    statuses = {
        asyncio.create_task(shim.status()): shim for shim in [await dial(peer) for _ in "ab"]
    }
    (refused,), (waiting,) = await asyncio.wait(statuses, return_when=asyncio.FIRST_COMPLETED)
    code, details = refused.result()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "chaincode.limits.unregistered" in details
    waiting.cancel()


async def test_those_that_will_be_refused_have_few_places_and_take_none_of_others(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(check_certificate_name=True, max_unregistered=4)
    ended = {
        asyncio.create_task(shim.status()): shim for shim in (await dial(peer), await dial(peer))
    }
    (refused, *_), (waiting,) = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    code, details = await refused
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1 chaincode streams have not sent REGISTER yet" in details
    await ended[waiting].say(register("mycc:1.0"))
    code, details = await waiting
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "selvedge://chaincode/mycc" in details


async def test_a_message_that_is_too_large_is_the_cause_that_everybody_hears(
    start_peer: StartPeer, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    config = ServerConfig(max_receive_bytes=10_000, receive_setting="peer.maxRecvMsgSize")
    peer = await start_peer(server=config)
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    message = await shim.hear()
    await shim.complete(message, result=bytes(20_000))
    cause = r"is above this listener's limit of 10000 bytes .* raise peer\.maxRecvMsgSize"
    with pytest.raises(StreamTerminated, match=f"the peer ended its stream: .*{cause}"):
        await running
    code, details = await shim.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert re.search(cause, details)
    assert re.search(cause, peer.registry.tally("mycc").last_error)
    assert "chaincode stream refused" in caplog.text


async def test_a_connection_that_breaks_is_said_to_be_lost(peer: Peer, dial: Dial) -> None:
    shim = await dial(peer, "mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    await shim.hear()
    shim.cut()
    with pytest.raises(StreamTerminated, match="as its connection was lost: the process ended"):
        await running
