"""Known attacks made of frames: each ends the attacker's connection by name, and no other."""

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable

import grpc
import pytest
from common.tests.comm.native.conftest import WINDOW_OF_NOTHING, Target
from common.tests.comm.native.raw_client import (
    GREETING,
    RawClient,
    data,
    headers,
    message,
    opening,
)

from selvedge_common.comm.native import frames
from selvedge_common.comm.native.frames import ErrorCode, Setting

Attack = Callable[..., Awaitable[Target]]


def _continuation(number: int, fragment: bytes = b"", flags: int = 0) -> bytes:
    return frames.frame(frames.CONTINUATION, flags, number, fragment)


async def _calmed(target: Target, client: RawClient, limit: str) -> str:
    """The connection is ended with ENHANCE_YOUR_CALM for this limit, and the server recovers."""
    code, sentence = await client.goaway()
    assert code is ErrorCode.ENHANCE_YOUR_CALM
    assert target.stopped_at(limit) == 1
    assert target.ended(limit) == 1
    await target.recovers()
    return sentence


# CVE-2023-44487: streams that are opened only to be cancelled.


async def test_rapid_reset_ends_the_connection_and_all_handlers(attack: Attack) -> None:
    target = await attack(http2={"resets": 50})
    client = await target.connect()
    flood = b""
    for _ in range(200):
        number = client.next_stream()
        block = client.block("/test.Raw/Hold")
        flood += headers(number, block) + frames.reset(number, ErrorCode.CANCEL)
    client.send(flood)
    assert "Too many streams were reset" in await _calmed(target, client, "resets")
    assert target.service.holding == target.service.cancelled


async def test_as_many_resets_as_are_allowed_and_earned_do_not_end_the_connection(
    attack: Attack,
) -> None:
    target = await attack(http2={"resets": 5})
    client = await target.connect()
    for _ in range(20):
        client.reset(client.open("/test.Raw/Hold"))
        assert (await client.response(client.call("/test.Raw/Echo", b"1"))).status == 0
    for _ in range(5):
        client.reset(client.open("/test.Raw/Hold"))
    await client.settle()
    await target.recovers()


async def test_handlers_that_do_not_end_when_cancelled_still_bound_their_client(
    attack: Attack,
) -> None:
    target = await attack(max_concurrent_streams=2)
    stubborn = asyncio.Event()

    async def linger(_: object, context: object) -> bytes:
        while not stubborn.is_set():
            try:
                await stubborn.wait()
            except asyncio.CancelledError:
                continue
        return b""

    method = grpc.unary_unary_rpc_method_handler(linger)
    target.server.add_registered_method_handlers("test.Stubborn", {"Linger": method})
    client = await target.connect()
    for _ in range(20):
        number = client.call("/test.Stubborn/Linger", b"")
        await client.settle()
        client.reset(number)
    await client.settle()
    assert target.running == 4
    assert target.stopped_at("max_concurrent_streams") == 16
    stubborn.set()
    await target.recovers()


# CVE-2025-8671: the client makes the server reset its streams.


def _zero_window(number: int) -> bytes:
    return frames.window_update(number, 0)


def _data_after_the_end(number: int) -> bytes:
    return data(number, b"", end=True) + data(number, b"more")


def _too_large_a_window(number: int) -> bytes:
    return frames.window_update(number, frames.MAX_WINDOW) * 2


def _depends_on_itself(number: int) -> bytes:
    return frames.frame(frames.PRIORITY, 0, number, number.to_bytes(4) + b"\0")


def _short_priority(number: int) -> bytes:
    return frames.frame(frames.PRIORITY, 0, number, b"\0")


def _headers_after_the_end(number: int) -> bytes:
    return data(number, b"", end=True) + headers(number, b"", end=True)


def _trailers_that_do_not_end(number: int) -> bytes:
    return headers(number, b"")


@pytest.mark.parametrize(
    "provoke",
    [
        _zero_window,
        _data_after_the_end,
        _too_large_a_window,
        _depends_on_itself,
        _short_priority,
        _headers_after_the_end,
        _trailers_that_do_not_end,
    ],
)
async def test_resets_that_a_client_provokes_count_as_its_own(
    attack: Attack, provoke: Callable[[int], bytes]
) -> None:
    target = await attack(http2={"resets": 20})
    client = await target.connect()
    for _ in range(30):
        number = client.open("/test.Raw/Hold")
        client.send(provoke(number))
    await _calmed(target, client, "resets")
    assert target.service.holding == target.service.cancelled


async def test_malformed_requests_count_as_resets(attack: Attack) -> None:
    target = await attack(http2={"resets": 20})
    client = await target.connect()
    for _ in range(30):
        client.open("/test.Raw/Echo", ("connection", "close"))
    await _calmed(target, client, "resets")


async def test_refused_streams_count_as_resets(attack: Attack) -> None:
    target = await attack(max_concurrent_streams=1, http2={"resets": 20})
    client = await target.connect()
    for _ in range(30):
        client.open("/test.Raw/Hold")
    await _calmed(target, client, "resets")
    assert target.stopped_at("max_concurrent_streams") == 21


# CONTINUATION floods.


@pytest.mark.parametrize("fragment", [b"", b"\x82", b"x" * 100], ids=["empty", "tiny", "some"])
async def test_header_block_of_many_frames_ends_the_connection(
    target: Target, fragment: bytes
) -> None:
    client = await target.connect()
    client.send(frames.frame(frames.HEADERS, 0, 1, fragment))
    await client.pour(_continuation(1, fragment) * 10_000)
    assert "64 frames" in await _calmed(target, client, "max_header_list_bytes")


async def test_header_block_of_many_bytes_ends_the_connection(target: Target) -> None:
    client = await target.connect()
    client.send(frames.frame(frames.HEADERS, 0, 1, b"x" * 16384))
    await client.pour(_continuation(1, b"x" * 16384) * 50)
    assert "65536 bytes" in await _calmed(target, client, "max_header_list_bytes")


async def test_header_block_that_ends_late_but_within_its_bounds_is_served(target: Target) -> None:
    client = await target.connect()
    block = client.block("/test.Raw/Echo")
    number = client.next_stream()
    client.send(frames.frame(frames.HEADERS, 0, number, b""))
    for at in range(len(block)):
        client.send(_continuation(number, block[at : at + 1]) if at < 40 else b"")
    client.send(_continuation(number, block[40:], frames.END_HEADERS))
    client.send(data(number, message(b"1"), end=True))
    assert (await client.response(number)).messages == [b"1"]
    await target.recovers()


async def test_header_block_that_is_interrupted_ends_the_connection(target: Target) -> None:
    client = await target.connect()
    client.send(
        frames.frame(frames.HEADERS, 0, 1, b"\x82"), frames.frame(frames.PING, 0, 0, b"8" * 8)
    )
    assert (await client.goaway())[0] is ErrorCode.PROTOCOL_ERROR
    assert target.ended("protocol_error") == 1
    await target.recovers()


@pytest.mark.parametrize("number", [1, 3])
async def test_continuation_of_nothing_ends_the_connection(target: Target, number: int) -> None:
    client = await target.connect()
    if number == 3:
        client.send(frames.frame(frames.HEADERS, 0, 1, b"\x82"))
    client.send(_continuation(number, b"\x82", frames.END_HEADERS))
    assert (await client.goaway())[0] is ErrorCode.PROTOCOL_ERROR
    await target.recovers()


# Floods of frames that carry nothing.

SMALL_OVERHEAD = {"overhead_bytes": 4096}


@pytest.mark.parametrize(
    "frame",
    [
        frames.settings({}),
        frames.settings({Setting.INITIAL_WINDOW_SIZE: 65535}),
        frames.frame(frames.SETTINGS, frames.ACK, 0),
        frames.frame(frames.PING, 0, 0, b"12345678"),
        frames.frame(frames.PING, frames.ACK, 0, b"12345678"),
        frames.frame(frames.PRIORITY, 0, 3, b"\0\0\0\0\1"),
        frames.window_update(0, 1),
        frames.window_update(1, 1),
        frames.frame(0xBB, 0, 0, b""),
        frames.frame(0xBB, 0xFF, 1, b"x" * 1000),
        frames.frame(frames.GOAWAY, 0, 0, b"\0" * 8),
        frames.frame(frames.DATA, 0, 1, b""),
        frames.frame(frames.DATA, frames.PADDED, 1, b"\4\0\0\0\0"),
    ],
    ids=[
        "settings",
        "settings of windows",
        "settings acknowledged",
        "ping",
        "ping answered",
        "priority",
        "window of the connection",
        "window of a stream",
        "unknown and empty",
        "unknown",
        "goaway",
        "empty data",
        "padding alone",
    ],
)
async def test_flood_of_frames_that_carry_nothing_ends_the_connection(
    attack: Attack, frame: bytes
) -> None:
    target = await attack(http2=SMALL_OVERHEAD)
    client = await target.connect()
    client.open("/test.Raw/Hold")
    await client.pour(frame * 2000)
    await _calmed(target, client, "overhead_bytes")
    assert target.service.holding == target.service.cancelled


@pytest.mark.parametrize(
    "frame",
    [
        frames.frame(frames.DATA, frames.END_STREAM, 1, b""),
        frames.frame(frames.DATA, 0, 1, b""),
        headers(1, b"", end=True),
        frames.reset(1, ErrorCode.CANCEL),
        frames.window_update(1, 1),
    ],
    ids=["empty data that ends", "empty data", "trailers", "reset", "window"],
)
async def test_flood_on_a_stream_that_the_server_has_ended_ends_the_connection(
    attack: Attack, frame: bytes
) -> None:
    target = await attack(http2={"overhead_bytes": 4096, "resets": 10})
    client = await target.connect()
    number = client.open("/none.Such/Method")
    assert (await client.response(number)).status == 12
    await client.pour(frame * 2000)
    code, _ = await client.goaway()
    assert code in (ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.STREAM_CLOSED)
    await target.recovers()


async def test_client_that_lets_its_answers_lie_is_ended(attack: Attack) -> None:
    target = await attack(http2={"overhead_bytes": 1 << 30, "max_unread_bytes": 2000})
    client = await target.connect(receive_buffer=4096)
    flood = asyncio.create_task(
        client.pour(frames.frame(frames.PING, 0, 0, b"12345678") * 2_000_000)
    )
    await target.eventually(lambda: target.stopped_at("max_unread_bytes") == 1)
    assert target.ended("max_unread_bytes") == 1
    await flood
    await target.recovers()


async def test_client_that_lets_the_ends_of_its_calls_lie_is_ended(attack: Attack) -> None:
    target = await attack(http2={"max_unread_bytes": 2000})
    client = await target.connect(receive_buffer=4096)
    odd = ("grpc-encoding", "br")
    client.send(headers(client.next_stream(), client.block("/a.B/C", odd), end=True))
    again = client.block("/a.B/C", odd)

    async def flood() -> None:
        for _ in range(200):
            calls = (headers(client.next_stream(), again, end=True) for _ in range(1000))
            await client.pour(b"".join(calls))

    flooding = asyncio.create_task(flood())
    await target.eventually(lambda: target.stopped_at("max_unread_bytes") == 1)
    assert target.ended("max_unread_bytes") == 1
    await flooding
    await target.recovers()


async def test_ping_flood_is_bounded_though_its_answers_are_read(attack: Attack) -> None:
    target = await attack(http2=SMALL_OVERHEAD)
    client = await target.connect()
    answers = 0
    while True:
        client.send(frames.frame(frames.PING, 0, 0, b"12345678"))
        got = await client.frame()
        assert got is not None
        if got.kind == frames.GOAWAY:
            break
        answers += got.kind == frames.PING
    assert 50 < answers < 200
    assert target.stopped_at("overhead_bytes") == 1
    await target.recovers()


async def test_settings_that_change_every_window_many_times_cost_one_change(
    attack: Attack,
) -> None:
    target = await attack(max_concurrent_streams=500)
    client = await target.connect()
    for _ in range(500):
        client.open("/test.Raw/Hold")
    connection = await target.connection()
    await target.eventually(lambda: len(connection.streams) == 500)
    changes = 0
    shift = connection._incoming._shift_windows

    def count(change: int) -> None:
        nonlocal changes
        changes += 1
        shift(change)

    connection._incoming._shift_windows = count  # type: ignore[method-assign]
    one = frames.settings({Setting.INITIAL_WINDOW_SIZE: 1})[frames.HEAD_BYTES :]
    two = frames.settings({Setting.INITIAL_WINDOW_SIZE: 2})[frames.HEAD_BYTES :]
    client.send(frames.frame(frames.SETTINGS, 0, 0, (one + two) * 1365))
    await client.settle()
    assert connection.initial_window == 2
    assert {stream.send_window for stream in connection.streams.values()} == {2}
    assert changes == 1
    await target.recovers()


async def test_changes_of_many_windows_are_paid_by_the_stream(attack: Attack) -> None:
    target = await attack(http2={"overhead_bytes": 100_000})
    client = await target.connect()
    for _ in range(500):
        client.open("/test.Raw/Hold")
    for number in range(1000):
        client.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: number}))
    code, _ = await client.goaway()
    assert code is ErrorCode.ENHANCE_YOUR_CALM
    assert target.ended("overhead_bytes") == 1
    await target.recovers()


# Windows.


async def test_window_of_a_stream_past_its_maximum_ends_the_stream(target: Target) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Hold")
    client.send(frames.window_update(number, frames.MAX_WINDOW))
    assert (await client.response(number)).reset is ErrorCode.FLOW_CONTROL_ERROR
    await target.recovers()


async def test_window_of_the_connection_past_its_maximum_ends_it(target: Target) -> None:
    client = await target.connect()
    client.send(frames.window_update(0, frames.MAX_WINDOW))
    assert (await client.goaway())[0] is ErrorCode.FLOW_CONTROL_ERROR
    assert target.ended("flow_control_error") == 1
    await target.recovers()


async def test_settings_that_make_a_window_too_large_end_the_connection(target: Target) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Hold")
    client.send(frames.window_update(number, frames.MAX_WINDOW - 65535))
    client.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 65536}))
    assert (await client.goaway())[0] is ErrorCode.FLOW_CONTROL_ERROR
    await target.recovers()


async def test_more_data_than_the_window_of_a_stream_ends_the_connection(attack: Attack) -> None:
    target = await attack(http2={"receive_window": 100_000})
    client = await target.connect()
    number = client.open("/test.Raw/Hold")
    client.send(data(number, message(b"x" * 16000) * 6))
    await client.settle()
    client.send(data(number, message(b"x" * 16000)))
    code, sentence = await client.goaway()
    assert code is ErrorCode.FLOW_CONTROL_ERROR
    assert "stream's window" in sentence
    await target.recovers()


async def test_window_smaller_than_the_default_takes_what_a_client_sends_before_it_knows(
    attack: Attack,
) -> None:
    target = await attack(http2={"receive_window": 1000})
    client = await target.connect()
    number = client.call("/test.Raw/Echo", b"x" * 65000)
    assert (await client.response(number)).messages == [b"x" * 65000]
    await target.recovers()


async def test_client_that_never_opens_its_window_holds_only_what_its_bound_allows(
    attack: Attack,
) -> None:
    target = await attack(http2={"max_pending": 1_000_000})
    client = await target.connect(greeting=WINDOW_OF_NOTHING)
    numbers = [client.call("/test.Raw/Send", b"1000*100000") for _ in range(50)]
    connection = await target.connection()
    await target.eventually(lambda: target.stopped_at("max_pending_of_connection") > 0)
    await client.settle()
    assert connection.pending.bytes <= 1_000_000
    assert connection.pending.bytes == sum(
        stream.outbox.bytes for stream in connection.streams.values()
    )
    refused = numbers[0]
    await target.serves()
    client.reset(refused)
    await target.recovers()


async def test_refused_stream_of_a_greedy_client_says_why(attack: Attack) -> None:
    target = await attack(http2={"max_pending": 250_000})
    client = await target.connect(greeting=WINDOW_OF_NOTHING)
    numbers = [client.call("/test.Raw/Send", b"10*100000") for _ in range(3)]
    ended = await client.until(frames.HEADERS, None)
    while not ended.flags & frames.END_STREAM:
        client.decode(ended.payload)
        ended = await client.until(frames.HEADERS, None)
    fields = client.decode(ended.payload)
    assert ended.stream in numbers
    assert fields["grpc-status"] == "8"
    assert "above the limit of 250000 bytes" in fields["grpc-message"]
    await target.recovers()


async def test_window_that_is_dribbled_byte_by_byte_ends_the_connection(attack: Attack) -> None:
    target = await attack(http2={"overhead_bytes": 4096})
    client = await target.connect(greeting=WINDOW_OF_NOTHING)
    number = client.call("/test.Raw/Send", b"1*100000")
    sent = 0
    while True:
        client.send(frames.window_update(number, 1))
        got = await client.frame()
        assert got is not None
        if got.kind == frames.GOAWAY:
            break
        sent += got.kind == frames.DATA
    assert 10 < sent < 500
    assert target.ended("overhead_bytes") == 1
    await target.recovers()


# A huge message in tiny pieces.


async def test_huge_message_in_tiny_frames_takes_no_more_memory_than_its_size(
    target: Target,
) -> None:
    client = await target.connect(greeting=opening({Setting.INITIAL_WINDOW_SIZE: 1 << 20}))
    client.send(frames.window_update(0, 1 << 20))
    size = 50_000
    number = client.open("/test.Raw/Echo")
    client.send(data(number, message(b"x" * size)[:5]))
    await client.settle()
    body = data(number, b"x" * (size - 1), size=1)
    tracemalloc.start()
    try:
        await client.pour(body)
        await client.settle()
        connection = await target.connection()
        held = connection.streams[number].inbox.held
        reader = connection.streams[number].inbox._reader
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held == size + 4  # the prefix is part of it
    assert reader._buffer is not None
    assert reader._buffer.__sizeof__() < 1.3 * size
    assert taken < 3 * len(body)
    client.send(data(number, b"x", end=True))
    assert (await client.response(number)).messages == [b"x" * size]
    await target.recovers()


async def test_first_frame_that_is_not_settings_ends_the_connection(target: Target) -> None:
    client = await target.connect(greeting=frames.PREFACE + frames.window_update(0, 1))
    assert (await client.goaway())[0] is ErrorCode.PROTOCOL_ERROR
    await target.recovers()


async def test_server_greets_a_client_whatever_it_says_next(target: Target) -> None:
    client = await target.connect(greeting=GREETING + b"\xff" * 100)
    first = await client.frame()
    assert first is not None
    assert first.kind == frames.SETTINGS
    assert (await client.goaway())[0] is ErrorCode.FRAME_SIZE_ERROR
    await target.recovers()
