"""What a chaincode can do in a transaction, seen from the peer's side of the stream."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from shim.tests.scripted_peer import Message, conversation, page

from selvedge_protos.peer import chaincode_shim_pb2 as wire
from selvedge_shim import (
    Chaincode,
    InvalidKey,
    PeerError,
    Response,
    ShimError,
    Stub,
    error,
    success,
)


class Scripted(Chaincode):
    """Runs what a test hands it."""

    def __init__(self, invoke: Callable[[Stub], Awaitable[Response]]) -> None:
        self._invoke = invoke

    async def init(self, stub: Stub) -> Response:
        return success("initialised")

    async def invoke(self, stub: Stub) -> Response:
        return await self._invoke(stub)


async def test_arguments_caller_and_transient_come_from_the_proposal() -> None:
    seen: dict[str, object] = {}

    async def invoke(stub: Stub) -> Response:
        seen.update(
            call=stub.function_and_parameters,
            ids=(stub.channel_id, stub.txid),
            creator=stub.creator,
            timestamp=stub.timestamp,
            transient=stub.get_transient(),
        )
        return success()

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction("create", "a1", "é")
        response, _ = await stream.completed()

    assert response.status == 200
    assert seen == {
        "call": ("create", ["a1", "é"]),
        "ids": ("mychannel", "tx1"),
        "creator": b"user1",
        "timestamp": datetime.fromtimestamp(1_000, UTC),
        "transient": {"secret": b"42"},
    }


async def test_state_is_read_written_and_deleted() -> None:
    async def invoke(stub: Stub) -> Response:
        value = await stub.get_state("a")
        await stub.put_state("b", value + b"!")
        await stub.delete_state("c")
        return success(value)

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction()
        read = await stream.expect(Message.GET_STATE)
        assert (read.txid, read.channel_id) == ("tx1", "mychannel")
        assert wire.GetState.FromString(read.payload) == wire.GetState(key="a")
        await stream.send(Message.RESPONSE, b"one", "tx1")
        write = await stream.expect(Message.PUT_STATE)
        assert wire.PutState.FromString(write.payload) == wire.PutState(key="b", value=b"one!")
        await stream.send(Message.RESPONSE, b"", "tx1")
        delete = await stream.expect(Message.DEL_STATE)
        assert wire.DelState.FromString(delete.payload) == wire.DelState(key="c")
        await stream.send(Message.RESPONSE, b"", "tx1")
        response, message = await stream.completed()

    assert (response.status, response.payload) == (200, b"one")
    assert not message.HasField("chaincode_event")


async def test_requests_made_at_once_go_out_one_at_a_time() -> None:
    async def invoke(stub: Stub) -> Response:
        return success(b",".join(await asyncio.gather(stub.get_state("a"), stub.get_state("b"))))

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction()
        for key in ("a", "b"):
            read = await stream.expect(Message.GET_STATE)
            assert wire.GetState.FromString(read.payload).key == key
            await stream.send(Message.RESPONSE, key.encode(), "tx1")
        response, _ = await stream.completed()

    assert response.payload == b"a,b"


async def test_transactions_overlap_on_one_stream() -> None:
    async def invoke(stub: Stub) -> Response:
        return success(await stub.get_state("a"))

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction(txid="tx1")
        await stream.transaction(txid="tx2")
        waiting = {(await stream.expect(Message.GET_STATE)).txid for _ in range(2)}
        assert waiting == {"tx1", "tx2"}
        await stream.send(Message.RESPONSE, b"two", "tx2")
        response, message = await stream.completed()
        assert (message.txid, response.payload) == ("tx2", b"two")
        await stream.send(Message.RESPONSE, b"one", "tx1")
        response, message = await stream.completed()
        assert (message.txid, response.payload) == ("tx1", b"one")


async def test_range_is_read_page_by_page() -> None:
    async def invoke(stub: Stub) -> Response:
        rows = [f"{row.key}={row.value.decode()}" async for row in stub.get_state_by_range("", "x")]
        return success(" ".join(rows))

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction()
        request = await stream.expect(Message.GET_STATE_BY_RANGE)
        bounds = wire.GetStateByRange.FromString(request.payload)
        assert (bounds.startKey, bounds.endKey) == ("\x01", "x")
        await stream.send(Message.RESPONSE, page(["a", "b"], has_more=True), "tx1")
        following = await stream.expect(Message.QUERY_STATE_NEXT)
        assert wire.QueryStateNext.FromString(following.payload).id == "it1"
        await stream.send(Message.RESPONSE, page(["c"], has_more=True), "tx1")
        await stream.expect(Message.QUERY_STATE_NEXT)
        await stream.send(Message.RESPONSE, page([], has_more=False), "tx1")
        response, _ = await stream.completed()

    assert response.payload == b"a=A b=B c=C"


async def test_range_left_early_is_closed_before_the_transaction_ends() -> None:
    async def invoke(stub: Stub) -> Response:
        async for row in stub.get_state_by_range():
            return success(row.key)
        return error("nothing there")

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction()
        await stream.expect(Message.GET_STATE_BY_RANGE)
        await stream.send(Message.RESPONSE, page(["a", "b"], has_more=True), "tx1")
        closing = await stream.expect(Message.QUERY_STATE_CLOSE)
        assert wire.QueryStateClose.FromString(closing.payload).id == "it1"
        await stream.send(Message.RESPONSE, b"", "tx1")
        response, _ = await stream.completed()

    assert response.payload == b"a"


async def test_composite_keys_are_made_split_and_ranged() -> None:
    async def invoke(stub: Stub) -> Response:
        key = stub.create_composite_key("colour~name", ["red", "a1"])
        assert stub.split_composite_key(key) == ("colour~name", ["red", "a1"])
        rows = stub.get_state_by_partial_composite_key("colour~name", ["red"])
        return success(",".join([row.key async for row in rows]))

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction()
        request = await stream.expect(Message.GET_STATE_BY_RANGE)
        bounds = wire.GetStateByRange.FromString(request.payload)
        prefix = "\x00colour~name\x00red\x00"
        assert (bounds.startKey, bounds.endKey) == (prefix, prefix + "\U0010ffff")
        await stream.send(Message.RESPONSE, page([prefix + "a1\x00"], has_more=False), "tx1")
        response, _ = await stream.completed()

    assert response.payload.decode() == prefix + "a1\x00"


async def test_event_goes_with_a_good_response_only() -> None:
    async def invoke(stub: Stub) -> Response:
        stub.set_event("Created", b"a1")
        if stub.function_and_parameters[0] == "fail":
            raise ValueError("too late")
        return success()

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction("work", txid="tx1")
        _, message = await stream.completed()
        event = message.chaincode_event
        assert (event.event_name, event.payload) == ("Created", b"a1")
        await stream.transaction("fail", txid="tx2")
        response, message = await stream.completed()
        assert (response.status, response.message) == (500, "ValueError: too late")
        assert not message.HasField("chaincode_event")


async def test_refused_request_raises_what_the_peer_said() -> None:
    async def invoke(stub: Stub) -> Response:
        with pytest.raises(PeerError) as refused:
            await stub.get_state("a")
        assert (refused.value.request, refused.value.reason) == ("GET_STATE", "no ledger")
        await stub.put_state("a", b"1")
        return success()

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction()
        await stream.expect(Message.GET_STATE)
        await stream.send(Message.ERROR, b"no ledger", "tx1")
        await stream.expect(Message.PUT_STATE)
        await stream.send(Message.ERROR, b"read only", "tx1")
        response, _ = await stream.completed()

    assert response.status == 500
    assert response.message == "PeerError: the peer refused PUT_STATE: read only"


@pytest.mark.parametrize(
    ("attempt", "failure"),
    [
        (lambda stub: stub.put_state("", b"1"), InvalidKey),
        (lambda stub: stub.get_state("\ud800"), InvalidKey),
        (lambda stub: stub.get_state_by_range("\x00a"), InvalidKey),
        (lambda stub: stub.create_composite_key("type", ["a\x00b"]), InvalidKey),
        (lambda stub: stub.split_composite_key("simple"), InvalidKey),
        (lambda stub: stub.set_event(""), ShimError),
    ],
)
async def test_wrong_use_is_refused_before_it_reaches_the_peer(
    attempt: Callable[[Stub], object], failure: type[ShimError]
) -> None:
    async def invoke(stub: Stub) -> Response:
        result = attempt(stub)
        if asyncio.iscoroutine(result):
            await result
        return success()

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction()
        response, _ = await stream.completed()

    assert response.message.startswith(f"{failure.__name__}: ")


async def test_init_runs_init() -> None:
    async def invoke(stub: Stub) -> Response:
        return error("invoked")

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction(kind=Message.INIT)
        response, _ = await stream.completed()

    assert response.payload == b"initialised"


async def test_handler_that_returns_nothing_is_told_so() -> None:
    async def invoke(stub: Stub) -> Response:
        return None  # type: ignore[return-value]

    async with conversation(Scripted(invoke)) as stream:
        await stream.transaction()
        response, _ = await stream.completed()

    assert response.message == "TypeError: Scripted.invoke must return a Response, not None"
