"""Messages that are too large, too many, never whole, or not what they say."""

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable

import grpc
import pytest
from common.tests.comm.native.conftest import WINDOW_OF_NOTHING, Target
from common.tests.comm.native.raw_client import data, message, opening, request_fields

from selvedge_common import comm
from selvedge_common.comm.native import frames, inbox
from selvedge_common.comm.native.connection import RECEIVED, STREAM_COST
from selvedge_common.comm.native.frames import ErrorCode, Setting

Attack = Callable[..., Awaitable[Target]]
GZIP = ("grpc-encoding", "gzip")
STREAM = {"grpc_service": "test.Raw", "grpc_method": "Stream"}


@pytest.mark.parametrize("size", [10_001, 2**31, 2**32 - 1])
async def test_length_above_the_limit_is_refused_before_the_message_comes(
    attack: Attack, size: int
) -> None:
    target = await attack(max_receive_bytes=10_000)
    client = await target.connect()
    number = client.open("/test.Raw/Echo")
    client.send(data(number, b"\0" + size.to_bytes(4) + b"x"))
    response = await client.response(number)
    assert response.status == 8
    assert f"A message of {size} bytes is above this listener's limit" in response.sentence
    assert target.stopped_at("max_receive_bytes") == 1
    await target.recovers()


async def test_message_stream_is_refused_a_large_message_by_name_too(attack: Attack) -> None:
    target = await attack(max_receive_bytes=10_000)
    client = await target.connect()
    number = client.open("/test.Raw/Stream")
    await client.settle()
    client.send(data(number, b"\0" + (20_000).to_bytes(4) + b"x"))
    assert (await client.response(number)).status == 8
    overflows = "grpc_server_stream_overflows_total"
    assert target.changed(overflows, bound="max_receive_bytes", **STREAM) == 1
    await target.recovers()


@pytest.mark.parametrize("method", ["Echo", "Chat", "Stream", "Hold"])
async def test_stream_that_ends_within_a_message_is_refused(target: Target, method: str) -> None:
    client = await target.connect()
    number = client.open(f"/test.Raw/{method}")
    client.send(data(number, message(b"x" * 100)[:50], end=True))
    response = await client.response(number)
    assert response.status == 13
    assert "ended 50 bytes into a message" in response.sentence
    await target.recovers()


async def test_call_without_a_message_is_refused(target: Target) -> None:
    client = await target.connect()
    response = await client.response(client.call("/test.Raw/Echo"))
    assert response.status == 13
    assert "without a message" in response.sentence
    await target.recovers()


@pytest.mark.parametrize("flag", [1, 2, 255])
async def test_flag_that_the_call_does_not_announce_is_refused(target: Target, flag: int) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Echo")
    client.send(data(number, message(b"x", flag)))
    response = await client.response(number)
    assert response.status == 13
    assert f"the flag {flag}" in response.sentence
    await target.recovers()


async def test_unknown_compression_is_refused_with_those_that_are_known(target: Target) -> None:
    client = await target.connect()
    number = client.call("/test.Raw/Echo", b"1", extra=(("grpc-encoding", "br"),))
    response = await client.response(number)
    assert response.status == 12
    assert response.headers["grpc-accept-encoding"] == "identity,deflate,gzip"
    await target.recovers()


async def test_compressed_bomb_is_refused_without_being_unpacked(attack: Attack) -> None:
    target = await attack(max_receive_bytes=100_000)
    client = await target.connect()
    bomb = gzip.compress(b"x" * 100_000_000)
    assert len(bomb) < 100_000
    number = client.open("/test.Raw/Echo", GZIP)
    client.send(data(number, message(bomb, 1), end=True))
    response = await client.response(number)
    assert response.status == 8
    assert f"compressed to {len(bomb)} bytes is above" in response.sentence
    assert target.stopped_at("max_receive_bytes") == 1
    await target.recovers()


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", b"no gzip"),
        ("gzip", b""),
        ("gzip", gzip.compress(b"cut short")[:-3]),
        ("gzip", gzip.compress(b"followed") + b"by more"),
        ("gzip", gzip.compress(b"followed") + gzip.compress(b"by another")),
        ("gzip", zlib.compress(b"deflate")),
        ("deflate", gzip.compress(b"gzip")),
        ("deflate", b"\0"),
    ],
)
async def test_garbage_that_is_marked_as_compressed_is_refused(
    target: Target, encoding: str, content: bytes
) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Echo", ("grpc-encoding", encoding))
    client.send(data(number, message(content, 1), end=True))
    response = await client.response(number)
    assert response.status == 13
    assert f"marked as compressed is not {encoding}" in response.sentence
    await target.recovers()


async def test_many_small_messages_that_nobody_takes_are_counted_and_held_back(
    attack: Attack,
) -> None:
    target = await attack(http2={"receive_window": 70_000})
    client = await target.connect()
    number = client.open("/test.Raw/Late")
    client.send(data(number, message(b"") * 13_000))
    await client.settle()
    connection = await target.connection()
    stream = connection.streams[number]
    assert stream.inbox.held == 13_000 * 64
    cost = stream.request.size + STREAM_COST
    assert target.changed("grpc_server_receiving_bytes") == 13_000 * 64 + cost
    assert stream._receive_window == 5000  # nothing was given back
    target.service.go_on.set()
    client.send(frames.window_update(number, 100_000))
    update = await client.until(frames.WINDOW_UPDATE, number)
    assert int.from_bytes(update.payload) == 65_000
    assert stream.inbox.held == 0
    await target.recovers()


async def test_above_the_bound_of_the_process_the_greedy_connection_loses(attack: Attack) -> None:
    target = await attack(max_receive_bytes=1_000_000, http2={"max_receiving_in_process": 450_000})
    greedy, modest = await target.connect(), await target.connect()
    modest_call = modest.open("/test.Raw/Chat")
    modest.send(data(modest_call, message(b"x" * 90_000)[:60_000]))
    await modest.settle()
    numbers = [greedy.open("/test.Raw/Chat") for _ in range(5)]
    for number in numbers:
        greedy.send(data(number, message(b"x" * 90_000)[:65_000]))
    size = STREAM_COST + len(request_fields("")) * 32 + 200  # of a call, about
    await target.eventually(lambda: 5 * STREAM_COST <= RECEIVED.bytes - 385_000 < 6 * size)
    greedy.send(data(numbers[1], b"x" * 20_000))
    response = await greedy.response(numbers[1])
    assert response.status == 8
    assert "above the limit of 450000 bytes" in response.sentence
    assert target.stopped_at("max_receiving_in_process") == 1
    assert 5 * STREAM_COST <= RECEIVED.bytes - 320_000 < 5 * size
    modest.send(data(modest_call, message(b"x" * 90_000)[60_000:], end=True))
    await modest.until(frames.DATA, modest_call)
    await target.recovers()


async def test_stream_that_is_refused_takes_nothing_more_from_its_client(attack: Attack) -> None:
    """Its rest is on the way; other streams that are over must not meet it."""
    target = await attack(max_receive_bytes=10_000)
    client = await target.connect(greeting=opening({Setting.INITIAL_WINDOW_SIZE: 10}))
    numbers = []
    for _ in range(2):
        number = client.open("/test.Raw/Chat")
        client.send(data(number, message(b"an answer of which a part is read")))
        await client.until(frames.DATA, number)
        # Refused while the answer is not whole, so that the stream stays.
        client.send(data(number, b"\0\xff\xff\xff\xff"))
        numbers.append(number)
    for number in numbers:
        client.send(data(number, b"\0\0"), data(number, message(b"") * 5))
    await client.settle()
    connection = await target.connection()
    assert set(connection.streams) == set(numbers)
    assert inbox._NOTHING.held_bytes == 0
    assert {stream.inbox.held for stream in connection.streams.values()} == {0}
    assert inbox._NOTHING.refusal is None
    assert target.stopped_at("max_receive_bytes") == 2
    for number in numbers:
        client.send(frames.window_update(number, 1000))
        assert (await client.response(number)).status == 8
    await target.recovers()


async def test_message_that_makes_a_handler_end_its_stream_leaves_those_after_it_unheld(
    target: Target,
) -> None:
    async def once(stream: comm.MessageStream) -> None:
        await stream.receive(lambda _: stream.abort(grpc.StatusCode.ABORTED, "One is enough."))

    target.server.add_message_stream("/test.Once/Once", once)
    client = await target.connect()
    number = client.open("/test.Once/Once")
    await client.settle()
    client.send(data(number, message(b"first") + message(b"second") * 10))
    response = await client.response(number)
    assert response.status == 10
    await target.eventually(lambda: RECEIVED.bytes == 0)
    await target.recovers()


async def test_callback_that_raises_ends_the_stream_and_holds_nothing(target: Target) -> None:
    def fail(_: bytes) -> None:
        raise comm.StatusError(grpc.StatusCode.DATA_LOSS, "Not this.")

    target.server.add_message_stream("/test.Fail/Fail", lambda stream: stream.receive(fail))
    client = await target.connect()
    number = client.open("/test.Fail/Fail")
    await client.settle()
    client.send(data(number, message(b"first") + message(b"second") * 10))
    assert (await client.response(number)).status == 15
    await target.recovers()


async def test_stream_that_is_cut_within_a_message_ends_its_call_once_that_is_read(
    target: Target,
) -> None:
    client = await target.connect(greeting=opening({Setting.INITIAL_WINDOW_SIZE: 100}))
    number = client.open("/test.Raw/Idle")
    await target.eventually(lambda: len(target.service.streams) == 1)
    stream = target.service.streams[0]
    for _ in range(5):
        stream.send(b"x" * 1000)
    await client.until(frames.DATA, number)
    stream.abort(grpc.StatusCode.ABORTED, "Enough.")
    await client.settle()
    assert target.running == 1
    client.send(frames.window_update(number, 10_000))
    response = await client.response(number)
    assert len(response.body) == 1005 - 100
    assert response.status == 10
    await target.eventually(lambda: target.running == 0)
    await target.recovers()


async def test_deadline_within_a_message_is_what_the_client_reads_after_it(target: Target) -> None:
    client = await target.connect(greeting=opening({Setting.INITIAL_WINDOW_SIZE: 100}))
    number = client.call("/test.Raw/Send", b"3*200000", extra=(("grpc-timeout", "50m"),))
    await client.until(frames.DATA, number)
    await target.eventually(lambda: target.service.cancelled == 1)
    await client.settle()
    client.send(frames.window_update(number, 1_000_000), frames.window_update(0, 1_000_000))
    response = await client.response(number)
    assert response.status == 4
    assert "deadline of 0.05 seconds" in response.sentence
    assert len(response.body) == 200_005 - 100
    await target.recovers()


async def test_client_that_does_not_read_the_rest_of_a_message_is_given_up(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selvedge_common.comm.native.stream._CUT_PATIENCE", 0.05)
    client = await target.connect(greeting=opening({Setting.INITIAL_WINDOW_SIZE: 100}))
    number = client.open("/test.Raw/Idle")
    await target.eventually(lambda: len(target.service.streams) == 1)
    target.service.streams[0].send(b"x" * 1000)
    await client.until(frames.DATA, number)
    target.service.streams[0].abort(grpc.StatusCode.ABORTED, "Enough.")
    assert (await client.response(number)).reset is ErrorCode.CANCEL
    await target.eventually(lambda: target.running == 0)
    await target.recovers()


async def test_replies_that_are_not_read_hold_the_handler_back(target: Target) -> None:
    client = await target.connect(greeting=WINDOW_OF_NOTHING)
    number = client.call("/test.Raw/Send", b"1000*10000")
    connection = await target.connection()
    await target.eventually(lambda: connection.pending.bytes > 64 * 1024)
    await client.settle()
    # One message above what a handler may write ahead.
    assert connection.pending.bytes == 7 * 10_005
    client.reset(number)
    await target.eventually(lambda: target.service.cancelled == 1)
    assert connection.pending.bytes == 0
    await target.recovers()


async def test_messages_sent_while_the_system_takes_none_wait_and_then_leave(
    target: Target,
) -> None:
    client = await target.connect(
        receive_buffer=4096, greeting=opening({Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW})
    )
    client.send(frames.window_update(0, frames.MAX_WINDOW - 65535))
    number = client.call("/test.Raw/Send", b"120*50000")
    connection = await target.connection()
    await target.eventually(lambda: connection.paused)
    response = await asyncio.wait_for(client.response(number), 20)
    assert [len(each) for each in response.messages] == [50_000] * 120
    assert response.status == 0
    await target.recovers()


async def test_nothing_is_kept_of_what_comes_after_the_end(target: Target) -> None:
    """A client may take a while to read why its connection ends; it may send meanwhile."""
    client = await target.connect()
    connection = await target.connection()
    client.send(data(0, b"of no stream"))
    assert (await client.goaway())[0] == ErrorCode.PROTOCOL_ERROR
    await client.pour(bytes(4 << 20))
    assert not connection._incoming._data
