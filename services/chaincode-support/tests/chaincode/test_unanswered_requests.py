"""One request of a transaction at a time: a second one, before the answer, gets ERROR."""

import asyncio

import pytest
from google.protobuf.message import Message
from rawshim import Dial, Peer, RawShim, called, refusal, transaction

from chaincode_support.chaincode.errors import ChaincodeFailure
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    GetHistoryForKey,
    GetState,
    GetStateByRange,
    PutState,
    QueryMetadata,
    QueryStateClose,
    QueryStateNext,
)

M = ChaincodeMessage
REASON = "the transaction's request before this one has not been answered yet"
PAGE = GetStateByRange(metadata=QueryMetadata(pageSize=2).SerializeToString())


@pytest.mark.parametrize(
    ("kind", "second"),
    [
        (M.GET_STATE, GetState(key="k")),
        (M.GET_STATE_BY_RANGE, GetStateByRange()),
        (M.GET_STATE_BY_RANGE, PAGE),
        (M.GET_HISTORY_FOR_KEY, GetHistoryForKey(key="k")),
        (M.QUERY_STATE_NEXT, QueryStateNext(id="x")),
        (M.QUERY_STATE_CLOSE, QueryStateClose(id="x")),
    ],
)
async def test_a_second_read_is_refused_and_the_first_request_is_answered(
    peer: Peer, dial: Dial, kind: int, second: Message
) -> None:
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        theirs = await b.hear()
        assert REASON in refusal(await a.ask(kind, second, message))
        await b.complete(theirs)
        assert (await a.hear()).type == M.RESPONSE
        assert (await a.ask(M.GET_STATE, GetState(key="k"), message)).type == M.RESPONSE
        await a.complete(message)
        assert (await running).response.status == 200


@pytest.mark.parametrize(
    ("kind", "second"),
    [(M.PUT_STATE, PutState(key="k", value=b"v")), (M.INVOKE_CHAINCODE, called("b"))],
)
async def test_a_second_write_or_call_aborts_the_transaction_and_what_it_called(
    peer: Peer, dial: Dial, kind: int, second: Message
) -> None:
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    async with transaction(peer, a, "a") as (running, message):
        await a.call("b", message)
        theirs = await b.hear()
        assert REASON in refusal(await a.ask(kind, second, message))
        with pytest.raises(ChaincodeFailure, match=REASON):
            await running
        await freed(b, theirs)
        assert peer.writes() == {}


async def test_two_transactions_do_not_wait_for_each_other(peer: Peer, dial: Dial) -> None:
    a, b = await dial(peer, "a:1.0"), await dial(peer, "b:1.0")
    async with (
        transaction(peer, a, "a", "t1") as (first, waiting),
        transaction(peer, a, "a", "t2") as (second, message),
    ):
        await a.call("b", waiting)
        theirs = await b.hear()
        assert (await a.get("k", message)).type == M.RESPONSE
        await a.complete(message)
        assert (await second).response.status == 200
        await b.complete(theirs)
        assert (await a.hear()).txid == "t1"
        await a.complete(waiting)
        assert (await first).response.status == 200


async def freed(shim: RawShim, message: ChaincodeMessage) -> None:
    """Return once the transaction is over for its stream."""
    async with asyncio.timeout(10):
        while "No ledger context" not in refusal_of_any(await shim.get("k", message)):
            await asyncio.sleep(0.001)


def refusal_of_any(answer: ChaincodeMessage) -> str:
    """The sentence of an ERROR, or nothing."""
    return answer.payload.decode() if answer.type == M.ERROR else ""
