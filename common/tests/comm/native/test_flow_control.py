"""Windows, both ways, of every size; and how streams of one connection share it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from common.tests.comm.native.conftest import WINDOW_OF_NOTHING, Target
from common.tests.comm.native.raw_client import Response, data, message, opening, split

from selvedge_common.comm.native import frames
from selvedge_common.comm.native.frames import Setting

Attack = Callable[..., Awaitable[Target]]
WIDE = opening({Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW})


@pytest.mark.parametrize("window", [1, 2, 3, 7, 100, 1000, 65535])
async def test_response_arrives_whole_through_a_window_of_any_size(
    target: Target, window: int
) -> None:
    size = min(500 * window, 60_000)
    client = await target.connect(greeting=opening({Setting.INITIAL_WINDOW_SIZE: window}))
    number = client.call("/test.Raw/Send", b"3*%d" % (size // 3))
    response = Response()
    allowed = window
    while True:
        got = await client.frame()
        assert got is not None
        if got.kind == frames.DATA:
            response.body += got.payload
            allowed -= len(got.payload)
            assert allowed >= 0
            if not allowed:
                allowed = window
                client.send(frames.window_update(number, window))
        elif got.kind == frames.HEADERS and got.flags & frames.END_STREAM:
            break
    assert [len(each) for each in response.messages] == [size // 3] * 3
    await target.recovers()


@pytest.mark.parametrize("window", [1, 3, 1000, 65535, 100_000, 2**31 - 1])
async def test_request_is_taken_whole_through_a_window_of_any_size(
    attack: Attack, window: int
) -> None:
    target = await attack(http2={"receive_window": window})
    client = await target.connect(greeting=WIDE)
    size = 200_000
    number = client.open("/test.Raw/Echo")
    body = message(b"x" * size)
    allowed = max(window, frames.DEFAULT_WINDOW)
    await client.settle()
    while body:
        part, body = body[: min(allowed, 16384)], body[min(allowed, 16384) :]
        client.send(data(number, part, end=not body))
        allowed -= len(part)
        while body and not allowed:
            update = await client.until(frames.WINDOW_UPDATE, number)
            allowed += int.from_bytes(update.payload)
    client.send(frames.window_update(0, 1 << 20))
    assert (await client.response(number)).messages == [b"x" * size]
    await target.recovers()


async def test_connection_s_window_bounds_all_of_its_streams(target: Target) -> None:
    client = await target.connect(greeting=WIDE)
    numbers = [client.call("/test.Raw/Send", b"1*30000") for _ in range(5)]
    connection = await target.connection()
    await target.eventually(lambda: connection.send_window == 0)
    received: Counter[int] = Counter()
    ended: set[int] = set()
    while ended != set(numbers):
        got = await client.frame()
        assert got is not None
        if got.kind == frames.DATA:
            received[got.stream] += len(got.payload)
            if sum(received.values()) == 65535:
                await asyncio.sleep(0)
                assert connection.send_window == 0
                client.send(frames.window_update(0, 5 * 30_005 - 65535))
        elif got.kind == frames.HEADERS and got.flags & frames.END_STREAM:
            ended.add(got.stream)
    assert received == dict.fromkeys(numbers, 30_005)
    assert connection.send_window == 0
    await target.recovers()


async def test_streams_of_one_connection_take_turns(target: Target) -> None:
    client = await target.connect(greeting=WIDE)
    large = [client.call("/test.Raw/Send", b"1*1000000") for _ in range(4)]
    connection = await target.connection()
    await target.eventually(
        lambda: sum(stream.outbox.bytes for stream in connection.streams.values()) > 3_900_000
    )
    client.send(frames.window_update(0, 4_000_000))
    order: list[int] = []
    received: Counter[int] = Counter()
    while len(received) < 4 or min(received.values()) < 900_000:
        got = await client.until(frames.DATA)
        received[got.stream] += len(got.payload)
        if not order or order[-1] != got.stream:
            order.append(got.stream)
        # Nobody is more than two turns ahead of anybody.
        if len(received) == 4 and max(received.values()) < 1_000_005:
            assert max(received.values()) - min(received.values()) <= 65535 + 3 * 64 * 1024
    assert set(order) == set(large)
    assert len(order) >= 40
    await target.recovers()


async def test_small_response_does_not_wait_for_a_large_one(target: Target) -> None:
    client = await target.connect(greeting=opening({Setting.INITIAL_WINDOW_SIZE: 10_000}))
    client.call("/test.Raw/Send", b"1*1000000")
    small = client.call("/test.Raw/Echo", b"1")
    assert (await client.response(small)).messages == [b"1"]
    await target.recovers()


async def test_initial_window_may_change_while_data_waits(target: Target) -> None:
    client = await target.connect(greeting=WINDOW_OF_NOTHING)
    number = client.call("/test.Raw/Send", b"1*1000")
    connection = await target.connection()
    await target.eventually(lambda: connection.pending.bytes == 1005)
    body = b""
    for window in (10, 11, 500):
        client.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: window}))
        got = await client.until(frames.DATA, number)
        body += got.payload
        assert len(body) == window
    # Below what was used already: then the window is negative, and updates only fill it up.
    client.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    client.send(frames.window_update(number, 500))
    await client.settle()
    assert connection.streams[number].send_window == 0
    client.send(frames.window_update(number, 505))
    body += (await client.until(frames.DATA, number)).payload
    assert split(body) == [b"\0" * 1000]
    await target.recovers()


async def test_windows_of_streams_to_come_follow_the_last_settings(target: Target) -> None:
    client = await target.connect()
    client.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 3}))
    number = client.call("/test.Raw/Echo", b"x" * 20)
    got = await client.until(frames.DATA, number)
    assert len(got.payload) == 3
    client.send(frames.window_update(number, 100))
    assert len((await client.until(frames.DATA, number)).payload) == 22
    await target.recovers()


async def test_larger_frames_are_sent_once_the_client_takes_them(target: Target) -> None:
    client = await target.connect(
        greeting=opening({Setting.INITIAL_WINDOW_SIZE: 1 << 20, Setting.MAX_FRAME_SIZE: 40_000})
    )
    number = client.call("/test.Raw/Send", b"1*50000")
    sizes = [len((await client.until(frames.DATA, number)).payload) for _ in range(2)]
    assert sizes == [40_000, 10_005]
    await target.recovers()


async def test_padding_counts_for_windows_and_not_for_messages(attack: Attack) -> None:
    target = await attack(http2={"receive_window": 100_000})
    client = await target.connect()
    number = client.open("/test.Raw/Chat")
    padded = b"\xff" + message(b"1") + b"\0" * 255
    for _ in range(200):
        client.send(frames.frame(frames.DATA, frames.PADDED, number, padded))
    update = await client.until(frames.WINDOW_UPDATE, number)
    assert int.from_bytes(update.payload) >= 50_000
    client.send(data(number, b"", end=True))
    response = await client.response(number)
    assert set(response.messages) == {b"1"}
    await target.recovers()


async def test_many_streams_are_echoed_at_once_through_narrow_windows(target: Target) -> None:
    client = await target.connect(greeting=opening({Setting.INITIAL_WINDOW_SIZE: 100}))
    numbers = [client.call("/test.Raw/Echo", bytes([each]) * 300) for each in range(50)]
    async with asyncio.timeout(10):
        responses = await client.responses(*numbers, window=100)
    for each, number in enumerate(numbers):
        assert responses[number].messages == [bytes([each]) * 300]
    await target.recovers()
