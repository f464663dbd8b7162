"""What only a client that speaks by hand sees of a call."""

import asyncio
import gzip
import zlib
from typing import Any

import grpc
import pytest
from common.tests.comm.native.conftest import Target
from common.tests.comm.native.raw_client import data, message

from selvedge_common.comm.native import connection as connection_module
from selvedge_common.comm.native import frames
from selvedge_common.comm.native.frames import ErrorCode


def _serve(target: Target, behaviour: Any) -> str:
    method = grpc.unary_unary_rpc_method_handler(behaviour)
    target.server.add_registered_method_handlers("test.One", {"Method": method})
    return "/test.One/Method"


async def test_error_before_anything_was_sent_is_trailers_alone(target: Target) -> None:
    client = await target.connect()
    number = client.call("/none.Such/Method", b"")
    got = await client.until(frames.HEADERS, number)
    assert got.flags & frames.END_STREAM
    fields = client.decode(got.payload)
    assert fields[":status"] == "200"
    assert fields["content-type"] == "application/grpc"
    assert fields["grpc-status"] == "12"
    await target.recovers()


async def test_path_of_a_stranger_travels_back_short_and_printable(target: Target) -> None:
    client = await target.connect()
    response = await client.response(client.call("/\x1b[31m" + "x" * 5000, b""))
    assert response.status == 12
    assert "\\x1b[31m" in response.sentence
    assert len(response.sentence) < 300
    await target.recovers()


async def test_client_that_did_not_half_close_is_told_to_send_no_more(target: Target) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Echo")
    client.send(data(number, message(b"1")))
    response = await client.response(number)
    assert response.messages == [b"1"]
    reset = await client.until(frames.RST_STREAM, number)
    assert frames.read_u32(reset.payload) == ErrorCode.NO_ERROR
    # What it had on the way is ignored.
    client.send(data(number, message(b"2")), data(number, b"", end=True))
    await client.settle()
    connection = await target.connection()
    assert number not in connection._incoming._forgiven
    await target.recovers()


async def test_data_after_the_client_ended_its_stream_is_not_ignored(target: Target) -> None:
    client = await target.connect()
    number = client.call("/test.Raw/Echo", b"1")
    await client.response(number)
    client.send(data(number, b"more"))
    reset = await client.until(frames.RST_STREAM, number)
    assert frames.read_u32(reset.payload) == ErrorCode.STREAM_CLOSED
    await target.recovers()


async def test_trailers_of_the_client_end_its_messages(target: Target) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Chat")
    client.send(data(number, message(b"1")))
    block = client.encoder.encode([("some", "trailer")])
    flags = frames.END_HEADERS | frames.END_STREAM
    client.send(frames.frame(frames.HEADERS, flags, number, block))
    response = await client.response(number)
    assert response.messages == [b"1"]
    assert response.status == 0
    await target.recovers()


@pytest.mark.parametrize(
    ("compression", "accepts", "encoding"),
    [
        (grpc.Compression.Gzip, "gzip,identity", "gzip"),
        (grpc.Compression.Deflate, "identity, deflate", "deflate"),
        (grpc.Compression.Gzip, "deflate", None),
        (grpc.Compression.Gzip, None, None),
    ],
)
async def test_responses_are_compressed_only_for_who_asks(
    target: Target, compression: grpc.Compression, accepts: str | None, encoding: str | None
) -> None:
    async def answer(_: bytes, context: Any) -> bytes:
        context.set_compression(compression)
        return b"x" * 1000

    path = _serve(target, answer)
    client = await target.connect()
    extra = (("grpc-accept-encoding", accepts),) if accepts else ()
    response = await client.response(client.call(path, b"", extra=extra))
    assert response.headers.get("grpc-encoding") == encoding
    assert response.body[0] == (encoding is not None)
    (content,) = response.messages
    if encoding:
        assert len(content) < 100
        content = gzip.decompress(content) if encoding == "gzip" else zlib.decompress(content)
    assert content == b"x" * 1000
    await target.recovers()


@pytest.mark.parametrize(
    "metadata",
    [
        (("Upper", "a"),),
        (("a", "ü"),),
        (("grpc-status", "0"),),
        (("number", 5),),
        (("three", "b", "c"),),
        5,
    ],
)
async def test_metadata_that_cannot_be_sent_ends_the_call_as_internal(
    target: Target, metadata: Any
) -> None:
    async def answer(_: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(metadata)
        return b""

    client = await target.connect()
    response = await client.response(client.call(_serve(target, answer), b""))
    assert response.status == 13
    await target.recovers()


async def test_callback_that_raises_hurts_no_other_and_no_count(target: Target) -> None:
    called: list[object] = []
    failures: list[Any] = []

    async def answer(_: bytes, context: Any) -> bytes:
        context.add_done_callback(lambda _: 1 // 0)
        context.add_done_callback(called.append)
        return b""

    client = await target.connect()
    path = _serve(target, answer)
    connection = await target.connection()
    connection.loop.set_exception_handler(lambda _, context: failures.append(context))
    assert (await client.response(client.call(path, b""))).status == 0
    await target.eventually(lambda: len(called) == 1 and target.running == 0)
    assert [type(failure["exception"]) for failure in failures] == [ZeroDivisionError]
    await target.recovers()


async def test_messages_of_one_read_are_answered_in_one_write(target: Target) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Stream")
    await client.settle()
    connection = await target.connection()
    writes = 0
    write = connection._hand_over

    def count() -> None:
        nonlocal writes
        writes += bool(connection._out)
        write()

    connection._hand_over = count  # type: ignore[method-assign]
    client.send(b"".join(data(number, message(b"%d" % each)) for each in range(100)))
    for each in range(100):
        got = await client.until(frames.DATA, number)
        assert got.payload == message(b"%d" % each)
    assert writes < 10
    await target.recovers()


async def test_one_client_s_work_is_done_in_turns_with_others(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_TURN", 0.0)  # a frame a turn
    busy, other = await target.connect(), await target.connect()
    await other.settle()
    numbers = [busy.call("/test.Raw/Echo", b"%d" % number) for number in range(500)]
    # All of it is there before the server looks.
    response = await other.response(other.call("/test.Raw/Echo", b"me too"))
    assert response.messages == [b"me too"]
    for number, sent in zip(numbers, range(500), strict=True):
        assert (await busy.response(number)).messages == [b"%d" % sent]
    await target.recovers()


async def test_handler_that_takes_many_messages_lets_others_have_their_turn(
    target: Target,
) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Late")
    client.send(data(number, message(b"") * 3000))
    await client.settle()
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    before = turns
    target.service.go_on.set()
    client.send(data(number, message(b"") * 3000, end=True))
    await client.response(number)
    ticking.cancel()
    assert turns - before > 40
    await target.recovers()
