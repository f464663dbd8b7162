"""A chaincode calls another one on its own channel: one transaction, one read-write set."""

import asyncio

import pytest
from rawshim import (
    Dial,
    Peer,
    RawShim,
    StartPeer,
    called,
    query_response,
    refusal,
    transaction,
)

from chaincode_support.chaincode.errors import ChaincodeFailure
from selvedge_common.comm import ServerConfig
from selvedge_protos.peer.chaincode_event_pb2 import ChaincodeEvent
from selvedge_protos.peer.chaincode_pb2 import ChaincodeInput
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    GetStateByRange,
    QueryMetadata,
    QueryStateNext,
)
from selvedge_protos.peer.proposal_response_pb2 import Response

M = ChaincodeMessage


def ended(answer: ChaincodeMessage) -> ChaincodeMessage:
    """How the called chaincode ended, as its caller is told."""
    assert answer.type == M.RESPONSE, answer
    return M.FromString(answer.payload)


def response(answer: ChaincodeMessage) -> Response:
    """What the called chaincode returned."""
    end = ended(answer)
    assert end.type == M.COMPLETED, end
    return Response.FromString(end.payload)


@pytest.fixture
async def a(peer: Peer, dial: Dial) -> RawShim:
    return await dial(peer, "a:1.0")


@pytest.fixture
async def b(peer: Peer, dial: Dial) -> RawShim:
    return await dial(peer, "b:1.0")


async def test_both_share_one_transaction_and_keep_their_namespaces(
    peer: Peer, a: RawShim, b: RawShim
) -> None:
    await peer.commit("b", {"k": b"b's"})
    async with transaction(peer, a, "a", "tx") as (running, message):
        await a.put("k", b"1", message)
        await a.call("b", message, b"put", b"k")
        theirs = await b.hear()
        assert (theirs.type, theirs.txid, theirs.channel_id) == (
            M.TRANSACTION,
            "tx",
            message.channel_id,
        )
        assert ChaincodeInput.FromString(theirs.payload).args == [b"put", b"k"]
        assert (await b.get("k", theirs)).payload == b"b's"
        await b.put("k", b"2", theirs)
        await b.complete(theirs, result=b"done")
        answer = await a.hear()
        assert (answer.txid, answer.channel_id) == ("tx", message.channel_id)
        assert response(answer) == Response(status=200, payload=b"done")
        # Neither has seen what was written, and the callee's transaction is over.
        assert (await a.get("k", message)).payload == b""
        assert "No ledger context" in refusal(await b.get("k", theirs))
        await a.complete(message, result=b"all done")
        assert (await running).response.payload == b"all done"
    written = {
        namespace: {write.key: write.value for write in rwset.writes}
        for namespace, rwset in peer.results().items()
    }
    assert written == {"a": {"k": b"1"}, "b": {"k": b"2"}}
    assert [read.key for read in peer.results()["b"].reads] == ["k"]


@pytest.mark.parametrize("name", ["b", "b:7.1", "b:7.1/mychannel", "b/mychannel"])
async def test_a_name_may_have_a_version_and_the_caller_s_channel(
    peer: Peer, a: RawShim, b: RawShim, name: str
) -> None:
    async with transaction(peer, a, "a") as (running, message):
        await a.call(name, message)
        theirs = await b.hear()
        await b.put("k", b"1", theirs)
        await b.complete(theirs)
        assert response(await a.hear()).status == 200
        await a.complete(message)
        await running
        assert list(peer.results()) == ["b"]


@pytest.mark.parametrize("status", [200, 399, 400, 500, 600])
async def test_any_status_of_the_callee_is_a_response(
    peer: Peer, a: RawShim, b: RawShim, status: int
) -> None:
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        await b.complete(await b.hear(), status=status, result=b"r")
        assert response(await a.hear()) == Response(status=status, payload=b"r")
        await a.complete(message)
        assert (await running).response.status == 200


async def test_the_callee_s_error_is_a_response_that_holds_it(
    peer: Peer, a: RawShim, b: RawShim
) -> None:
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        theirs = await b.hear()
        await b.say(M(type=M.ERROR, payload=b"no luck", txid=theirs.txid))
        end = ended(await a.hear())
        assert (end.type, end.payload) == (M.ERROR, b"no luck")
        await a.complete(message)
        assert (await running).response.status == 200


async def test_a_failing_write_of_the_callee_ends_it_and_not_its_caller(
    peer: Peer, a: RawShim, b: RawShim
) -> None:
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        assert "the key is empty" in refusal(await b.put("", b"1", await b.hear()))
        end = ended(await a.hear())
        assert end.type == M.ERROR
        assert b"PUT_STATE failed" in end.payload
        await a.complete(message)
        assert (await running).response.status == 200


async def test_the_event_of_the_callee_is_not_the_transaction_s(
    peer: Peer, a: RawShim, b: RawShim
) -> None:
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        await b.complete(await b.hear(), event=ChaincodeEvent(event_name="nested"))
        assert response(await a.hear()).status == 200
        await a.complete(message)
        assert (await running).event is None
    async with transaction(peer, a, "a", "t2") as (running, message):
        await a.call("b", message)
        await b.complete(await b.hear(), event=ChaincodeEvent(event_name="nested"))
        await a.hear()
        await a.complete(message, event=ChaincodeEvent(event_name="own"))
        assert (await running).event == ChaincodeEvent(
            chaincode_id="a", tx_id="t2", event_name="own"
        )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nobody", "chaincode nobody is not known to this peer"),
        ("", "the call names no chaincode: give chaincode[:version][/channel]"),
        (":1.0/mychannel", "the call names no chaincode"),
        ("no\nbody", "chaincode no\\nbody is not known to this peer"),
        ("b/elsewhere", "channel 'elsewhere' not found"),
    ],
)
async def test_a_call_of_what_is_not_there_aborts_the_caller(
    peer: Peer, a: RawShim, b: RawShim, name: str, reason: str
) -> None:
    async with transaction(peer, a, "a") as (running, message):
        await a.call(name, message)
        sentence = refusal(await a.hear())
        assert sentence.startswith(
            f"INVOKE_CHAINCODE failed: transaction ID: {message.txid}: execute failed: "
        )
        assert reason in sentence
        with pytest.raises(ChaincodeFailure, match="INVOKE_CHAINCODE failed"):
            await running


async def test_a_callee_that_was_here_is_waited_for(peer: Peer, dial: Dial, a: RawShim) -> None:
    before = await dial(peer, "b:1.0")
    await before.half_close()
    await before.status()
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        assert "has not been answered yet" in refusal(await a.get("k", message))
        b = await dial(peer, "b:1.1")
        await b.complete(await b.hear())
        assert response(await a.hear()).status == 200
        await a.complete(message)
        assert (await running).response.status == 200


async def test_a_chaincode_that_calls_itself_is_refused(peer: Peer, a: RawShim) -> None:
    async with transaction(peer, a, "a", "tx") as (running, message):
        await a.call("a:1.0/mychannel", message)
        assert "transaction tx already runs chaincode a on channel mychannel" in (
            refusal(await a.hear())
        )
        with pytest.raises(ChaincodeFailure, match="a chaincode cannot call itself"):
            await running


async def test_a_chaincode_that_waits_cannot_be_called_back(
    peer: Peer, a: RawShim, b: RawShim
) -> None:
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        theirs = await b.hear()
        await b.call("a", theirs)
        assert "already runs chaincode a on channel mychannel" in refusal(await b.hear())
        end = ended(await a.hear())
        assert end.type == M.ERROR
        assert b"nor one that waits for it" in end.payload
        await a.complete(message)
        assert (await running).response.status == 200


async def test_a_chaincode_may_be_called_again_once_it_has_ended(
    peer: Peer, a: RawShim, b: RawShim
) -> None:
    async with transaction(peer, a, "a") as (running, message):
        for number in range(3):
            await a.call("b", message)
            theirs = await b.hear()
            await b.put(f"k{number}", b"1", theirs)
            await b.complete(theirs)
            assert response(await a.hear()).status == 200
        await a.complete(message)
        await running
        assert list(peer.writes()) == ["k0", "k1", "k2"]


async def test_a_called_chaincode_may_call_a_third(
    peer: Peer, dial: Dial, a: RawShim, b: RawShim
) -> None:
    c = await dial(peer, "c:1.0")
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        second = await b.hear()
        await b.call("c", second)
        third = await c.hear()
        await c.put("k", b"3", third)
        await c.complete(third, result=b"c")
        assert response(await b.hear()).payload == b"c"
        await b.complete(second, result=b"b")
        assert response(await a.hear()).payload == b"b"
        await a.complete(message)
        await running
        assert {name: len(rwset.writes) for name, rwset in peer.results().items()} == {"c": 1}


async def test_queries_of_the_callee_are_its_own(peer: Peer, a: RawShim, b: RawShim) -> None:
    await peer.commit("a", {f"k{number:04}": b"v" for number in range(101)})
    async with transaction(peer, a, "a") as (_, message):
        answer = await a.ask(M.GET_STATE_BY_RANGE, GetStateByRange(startKey="k"), message)
        following = QueryStateNext(id=query_response(answer).id)
        await a.call("b", message)
        theirs = await b.hear()
        stolen = await b.ask(M.QUERY_STATE_NEXT, following, theirs)
        assert refusal(stolen).endswith("query iterator not found")
        await b.complete(theirs)
        await a.hear()
        rest = query_response(await a.ask(M.QUERY_STATE_NEXT, following, message))
        assert len(rest.results) == 1


async def test_pages_of_the_callee_make_its_caller_read_only(
    peer: Peer, a: RawShim, b: RawShim
) -> None:
    paging = QueryMetadata(pageSize=1).SerializeToString()
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        theirs = await b.hear()
        page = await b.ask(M.GET_STATE_BY_RANGE, GetStateByRange(metadata=paging), theirs)
        query_response(page)
        await b.complete(theirs)
        await a.hear()
        assert "has read a page of a range" in refusal(await a.put("k", b"1", message))
        with pytest.raises(ChaincodeFailure):
            await running


async def test_two_transactions_call_the_same_chaincode_at_once(
    peer: Peer, a: RawShim, b: RawShim
) -> None:
    first, second = (asyncio.create_task(peer.execute("a", txid)) for txid in ("t1", "t2"))
    mine = [await a.hear() for _ in range(2)]
    for message in mine:
        await a.call("b", message)
    theirs = [await b.hear() for _ in range(2)]
    for message in reversed(theirs):
        await b.complete(message, result=message.txid.encode())
    for _ in mine:
        answer = await a.hear()
        assert response(answer).payload == answer.txid.encode()
    for message in mine:
        await a.complete(message)
    assert (await first).response.status == (await second).response.status == 200


async def test_a_result_larger_than_a_message_is_refused(start_peer: StartPeer, dial: Dial) -> None:
    server = ServerConfig(max_send_bytes=100_000, max_receive_bytes=1 << 20)
    peer = await start_peer(server=server)
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        await b.complete(await b.hear(), result=bytes(100_000))
        assert "RESOURCE_EXHAUSTED: the answer has" in refusal(await a.hear())
        with pytest.raises(ChaincodeFailure, match=r"peer\.maxSendMsgSize"):
            await running


async def test_a_callee_that_runs_too_much_refuses_the_call(
    start_peer: StartPeer, dial: Dial
) -> None:
    peer = await start_peer(max_transactions=1)
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    busy = asyncio.create_task(peer.execute("b", "busy"))
    theirs = await b.hear()
    async with transaction(peer, a, "a") as (running, message):
        await a.request(M.INVOKE_CHAINCODE, called("b"), message)
        assert "RESOURCE_EXHAUSTED: chaincode b already runs 1" in refusal(await a.hear())
        with pytest.raises(ChaincodeFailure, match="RESOURCE_EXHAUSTED"):
            await running
    await b.complete(theirs)
    assert (await busy).response.status == 200
