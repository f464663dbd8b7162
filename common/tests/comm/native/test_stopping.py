"""How a connection ends in order, and the bound on calls at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from common.tests.comm.native.conftest import Target
from common.tests.comm.native.raw_client import (
    PATIENCE,
    data,
    headers,
    message,
    opening,
    split,
)

from selvedge_common.comm.native import frames
from selvedge_common.comm.native.frames import ErrorCode, Setting

Attack = Callable[..., Awaitable[Target]]


def _last_stream(payload: bytes) -> int:
    return int.from_bytes(payload[:4])


async def test_streams_that_were_begun_before_the_farewell_are_served_and_later_ones_are_not(
    target: Target,
) -> None:
    client = await target.connect()
    first = client.open("/test.Raw/Chat")
    await client.settle()
    stopping = asyncio.create_task(target.server.stop(10))
    warning = (await client.until(frames.GOAWAY)).payload
    assert _last_stream(warning) == frames.MAX_STREAM
    assert warning[4:8] == b"\0\0\0\0"
    farewell = (await client.until(frames.PING)).payload
    second = client.open("/test.Raw/Chat")  # not knowing yet
    client.send(frames.frame(frames.PING, frames.ACK, 0, farewell))
    assert _last_stream((await client.until(frames.GOAWAY)).payload) == second
    connection = await target.connection()
    # The client has not read that yet: what it sends now is ignored, and it is told nothing.
    third = client.call("/test.Raw/Chat", b"3")
    client.send(headers(client.next_stream(), client.block("/test.Raw/Chat")))
    await client.settle()
    assert set(connection.streams) == {first, second}
    for number in (second, first):
        client.send(data(number, message(b"%d" % number), end=True))
        response = await client.response(number)
        assert response.messages == [b"%d" % number]
        assert response.status == 0
    while (got := await client.frame()) is not None:
        assert got.stream != third
    client.close()
    await stopping
    assert target.ended("server") == 1


async def test_idle_connection_is_closed_by_stop_and_an_unsettled_one_too(target: Target) -> None:
    idle, silent = await target.connect(), await target.connect(greeting=b"")
    await idle.settle()
    stopping = asyncio.create_task(target.server.stop(10))
    await idle.closed()
    await silent.closed()
    target.close_clients()
    await stopping
    assert target.ended("server") == 2
    assert not target.connections


async def test_calls_that_outlast_the_grace_are_told_that_the_server_stops(target: Target) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Hold")
    await client.settle()
    stopping = asyncio.create_task(target.server.stop(0.05))
    response = await client.response(number)
    await client.closed()
    client.close()
    await stopping
    assert response.status == 14
    assert "stopping" in response.sentence
    assert target.service.cancelled == 1


async def test_who_reads_slowly_gets_all_that_was_sent_before_the_server_stopped(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it goes on to send, which a system that has closed answers by dropping the rest."""
    monkeypatch.setattr("selvedge_common.comm.native.connection._LINGER", 0.05)
    wide = opening({Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW})
    client = await target.connect(greeting=wide, receive_buffer=4096)
    client.send(frames.window_update(0, 1 << 30))
    number = client.call("/test.Raw/Send", b"40*10000")
    body, ended = (await client.until(frames.DATA)).payload, False
    stopping = asyncio.create_task(target.server.stop(10))
    while (got := await client.frame()) is not None:
        if got.stream != number:
            continue
        body += got.payload if got.kind == frames.DATA else b""
        ended = bool(got.flags & frames.END_STREAM)
        if got.kind == frames.DATA:
            client.send(frames.window_update(0, 1))
            await asyncio.sleep(0.01)
    assert len(list(split(body))) == 40
    assert ended
    client.close()
    await stopping


async def test_who_reads_nothing_does_not_keep_the_server_from_stopping(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_LINGER", "_STALLED_LINGER"):
        monkeypatch.setattr(f"selvedge_common.comm.native.connection.{name}", 0.05)
    wide = opening({Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW})
    client = await target.connect(greeting=wide, receive_buffer=4096)
    client.send(frames.window_update(0, 1 << 30))
    client.call("/test.Raw/Send", b"4*10000")
    await client.until(frames.DATA)
    await target.eventually(lambda: target.running == 0)
    async with asyncio.timeout(PATIENCE):
        await target.server.stop(1000)


async def test_stop_waits_for_handlers_that_clean_up(target: Target) -> None:
    cleaned: list[str] = []

    async def tidy(_: bytes, __: Any) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            cleaned.append("up")
        return b""

    method = grpc.unary_unary_rpc_method_handler(tidy)
    target.server.add_registered_method_handlers("test.Tidy", {"Tidy": method})
    client = await target.connect()
    client.call("/test.Tidy/Tidy", b"")
    await client.settle()
    assert target.running == 1
    stopping = asyncio.create_task(target.server.stop(0))
    await client.closed()
    client.close()
    await stopping
    assert cleaned == ["up"]
    assert target.running == 0


async def test_goaway_of_a_fault_does_not_take_back_what_was_said_before(target: Target) -> None:
    client = await target.connect()
    first = client.open("/test.Raw/Hold")
    await client.settle()
    stopping = asyncio.create_task(target.server.stop(10))
    farewell = (await client.until(frames.PING)).payload
    client.send(frames.frame(frames.PING, frames.ACK, 0, farewell))
    client.open("/test.Raw/Hold")
    client.send(frames.window_update(0, 0))
    said = []
    while (got := await client.frame()) is not None:
        if got.kind == frames.GOAWAY:
            said.append(_last_stream(got.payload))
    assert said == [first, first]
    client.close()
    await stopping


async def test_client_that_goes_away_may_finish_its_calls(target: Target) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Chat")
    client.send(frames.goaway(0, ErrorCode.NO_ERROR), data(number, message(b"1"), end=True))
    assert (await client.response(number)).messages == [b"1"]
    await target.recovers()


async def test_call_above_the_number_at_once_is_refused_and_may_be_tried_again(
    attack: Attack,
) -> None:
    target = await attack(max_concurrent_streams=2)
    client = await target.connect()
    held = [client.open("/test.Raw/Chat") for _ in range(2)]
    refused = client.call("/test.Raw/Echo", b"1")
    response = await client.response(refused)
    assert response.reset is ErrorCode.REFUSED_STREAM
    assert target.stopped_at("max_concurrent_streams") == 1
    client.send(data(held[0], b"", end=True))
    assert (await client.response(held[0])).status == 0
    assert (await client.response(client.call("/test.Raw/Echo", b"2"))).messages == [b"2"]
    await target.recovers()


@pytest.mark.parametrize("settings", [b"\0", b"\0\3\0\0\0\1\0"])
async def test_settings_that_are_cut_short_end_the_connection(
    target: Target, settings: bytes
) -> None:
    client = await target.connect()
    client.send(frames.frame(frames.SETTINGS, 0, 0, settings))
    assert (await client.goaway())[0] is ErrorCode.FRAME_SIZE_ERROR
    await target.recovers()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (frames.frame(frames.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, 0, 2, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, 0, 99, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, frames.PADDED, 1, b"\5x"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 4, 2, b"\x82"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 4, 0, b"\x82"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 0x24, 1, b"\0\0"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.PRIORITY, 0, 0, b"\0" * 5), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.RST_STREAM, 0, 1, b"\0" * 4), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.RST_STREAM, 0, 0, b"\0" * 4), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.RST_STREAM, 0, 1, b"\0"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.SETTINGS, frames.ACK, 0, b"\0" * 6), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 0, 0, b"\0\2\0\0\0\2"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.SETTINGS, 0, 0, b"\0\4\x80\0\0\0"), ErrorCode.FLOW_CONTROL_ERROR),
        (frames.frame(frames.SETTINGS, 0, 0, b"\0\5\0\0\0\1"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.PING, 0, 1, b"\0" * 8), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.PING, 0, 0, b"\0" * 7), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.GOAWAY, 0, 1, b"\0" * 8), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0"), ErrorCode.FRAME_SIZE_ERROR),
        (frames.frame(frames.CONTINUATION, 4, 1, b"\x82"), ErrorCode.PROTOCOL_ERROR),
    ],
)
async def test_frame_that_breaks_the_protocol_ends_the_connection(
    target: Target, frame: bytes, code: ErrorCode
) -> None:
    client = await target.connect()
    client.send(frame)
    said, sentence = await client.goaway()
    assert said is code
    assert sentence.endswith(".")
    assert target.ended(code.name.lower()) == 1
    await target.recovers()
