"""Slow loris, half-open connections, and clients that leave in the middle."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from common.tests.comm.native.conftest import Target, client_context
from common.tests.comm.native.raw_client import GREETING, data, message

from selvedge_common import comm
from selvedge_common.comm.native import frames
from selvedge_common.comm.native.connection import STREAM_COST
from selvedge_common.comm.native.frames import ErrorCode

Attack = Callable[..., Awaitable[Target]]


async def test_client_that_says_nothing_is_closed(attack: Attack) -> None:
    target = await attack(handshake_timeout=0.1)
    client = await target.connect(greeting=b"")
    await client.closed()
    assert target.stopped_at("handshake_timeout") == 1
    assert target.ended("handshake_timeout") == 1
    await target.recovers()


@pytest.mark.parametrize("greeting", [GREETING, GREETING[:24]], ids=["all", "preface"])
async def test_client_that_dribbles_its_greeting_is_closed(attack: Attack, greeting: bytes) -> None:
    target = await attack(handshake_timeout=0.1)
    client = await target.connect(greeting=b"")

    async def dribble() -> None:
        for at in range(len(greeting) - 1):
            if not client.writer.is_closing():
                client.send(greeting[at : at + 1])
                await asyncio.sleep(0.005)

    dribbling = asyncio.create_task(dribble())
    await client.closed()
    assert target.ended("handshake_timeout") == 1
    await dribbling
    await target.recovers()


async def test_header_block_that_is_never_finished_ends_the_connection(attack: Attack) -> None:
    target = await attack(handshake_timeout=0.1)
    client = await target.connect()
    client.send(frames.frame(frames.HEADERS, 0, 1, b"\x82"))
    code, sentence = await client.goaway()
    assert code is ErrorCode.ENHANCE_YOUR_CALM
    assert "not finished in time" in sentence
    assert target.ended("handshake_timeout") == 1
    assert target.stopped_at("handshake_timeout") == 1
    await target.recovers()


async def test_header_block_that_was_begun_leaves_no_timer_behind(target: Target) -> None:
    client = await target.connect()
    client.send(frames.frame(frames.HEADERS, 0, 1, b"\x82"))
    connection = await target.connection()
    await target.eventually(lambda: connection._incoming._block is not None)
    assert connection._incoming._block is not None
    timer = connection._incoming._block.timer
    assert timer is not None
    await target.recovers()
    assert timer.cancelled()


async def test_message_that_is_never_finished_holds_its_bytes_until_its_client_leaves(
    target: Target,
) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Echo")
    client.send(data(number, message(b"x" * 10_000)[:5000]))
    await client.settle()
    connection = await target.connection()
    stream = connection.streams[number]
    assert stream.inbox.held == 5000
    assert target.changed("grpc_server_receiving_bytes") == (
        5000 + stream.request.size + STREAM_COST
    )
    await target.recovers()


async def test_strangers_make_room_for_each_other_and_push_nobody_out(attack: Attack) -> None:
    target = await attack(http2={"max_connections": 8}, handshake_timeout=5)
    idle = await target.connect()
    await idle.settle()
    silent = [await target.connect(greeting=b"") for _ in range(10)]
    for client in silent[:8]:
        await client.closed()
    assert len(target.connections) == 3
    assert target.ended("max_connections") == target.stopped_at("max_connections") == 8
    response = await idle.response(idle.call("/test.Raw/Echo", b"still here"))
    assert response.messages == [b"still here"]
    await target.recovers()


async def test_idle_connections_make_room_and_busy_ones_stay(attack: Attack) -> None:
    target = await attack(http2={"max_connections": 8})
    clients = [await target.connect() for _ in range(6)]
    for client in clients:
        await client.settle()
    busy, idle = clients[:5], clients[5]
    for client in busy:
        client.open("/test.Raw/Hold")
        await client.settle()
    newest = await target.connect()
    await idle.closed()
    newest.open("/test.Raw/Hold")
    await newest.settle()
    too_many = await target.connect()
    code, sentence = await too_many.goaway()
    assert code is ErrorCode.ENHANCE_YOUR_CALM
    assert "raise transport.maxConnections" in sentence
    assert target.running == 6
    assert target.stopped_at("max_connections") == 2
    busy[0].close()
    await target.eventually(lambda: len(target.connections) == 5)
    await target.recovers()


async def test_tls_handshakes_that_hang_make_room(
    attack: Attack, make_tls_authority: Callable[[str], Any]
) -> None:
    authority = make_tls_authority("root")
    mine, secure = authority.issue("client"), authority.mutual_tls()
    target = await attack(secure=secure, http2={"max_connections": 12}, handshake_timeout=5)
    hanging = [await target.connect(greeting=b"") for _ in range(3)]
    await target.eventually(lambda: len(target.native._greeting) == 3)
    channel = comm.channel(
        target.server.address,
        root_cas=authority.root,
        certificate=mine.certificate,
        key=mine.key,
    )
    async with channel:
        unary: Any = channel.unary_unary
        echo = unary("/test.Raw/Echo")
        assert await echo(b"in") == b"in"
    await hanging[0].closed()
    assert target.stopped_at("max_connections") >= 1
    target.close_clients()
    await target.eventually(lambda: not target.connections and not target.native._greeting)


async def test_silent_client_is_pinged_and_left_when_it_does_not_answer(attack: Attack) -> None:
    target = await attack(keepalive=comm.KeepaliveConfig(interval=0.05, timeout=0.1))
    client = await target.connect()
    client.open("/test.Raw/Hold")
    code, sentence = await client.goaway()
    assert code is ErrorCode.NO_ERROR
    assert "did not answer a ping" in sentence
    assert target.ended("keepalive_timeout") == 1
    await target.eventually(lambda: target.service.cancelled == 1)
    await target.recovers()


@pytest.mark.parametrize("method", ["Hold", "Idle", "Chat", "Stream"])
async def test_peer_that_half_closes_its_connection_has_gone(target: Target, method: str) -> None:
    client = await target.connect()
    client.open(f"/test.Raw/{method}")
    await client.settle()
    assert target.running == 1
    client.writer.write_eof()
    await client.closed()
    await target.eventually(lambda: target.running == 0)
    assert target.ended("client") == 1
    await target.recovers()


@pytest.mark.parametrize("method", ["Hold", "Idle", "Chat", "Stream", "Late"])
async def test_handlers_end_when_their_connection_is_lost_in_the_middle_of_a_message(
    target: Target, method: str
) -> None:
    client = await target.connect()
    for _ in range(10):
        number = client.open(f"/test.Raw/{method}")
        client.send(data(number, message(b"whole") + message(b"half")[:7]))
    await client.settle()
    assert target.running == 10
    client.close()
    await target.eventually(lambda: target.running == 0)
    await target.recovers()


async def test_reset_in_the_middle_of_a_message_ends_its_handler_alone(target: Target) -> None:
    client = await target.connect()
    lost, kept = client.open("/test.Raw/Chat"), client.open("/test.Raw/Chat")
    client.send(data(lost, message(b"half")[:7]), data(kept, message(b"half")[:7]))
    client.reset(lost)
    await client.settle()
    assert target.running == 1
    client.send(data(kept, message(b"half")[7:], end=True))
    assert (await client.response(kept)).messages == [b"half"]
    await target.recovers()


# TLS.


@pytest.fixture
async def secure(attack: Attack, make_tls_authority: Callable[[str], Any]) -> tuple[Target, bytes]:
    authority = make_tls_authority("root")
    pair = authority.issue("server")
    config = comm.SecureServerConfig(use_tls=True, certificate=pair.certificate, key=pair.key)
    return await attack(secure=config, handshake_timeout=0.2), authority.root


async def test_tls_handshake_that_is_never_finished_is_given_up(
    secure: tuple[Target, bytes],
) -> None:
    target, root = secure
    for greeting in (b"", b"\x16\x03\x01\0\xff\1\0"):
        client = await target.connect(greeting=greeting)
        assert await client.reader.read() == b""
    failures = "grpc_server_handshake_failures_total"
    assert target.changed(failures, reason="timeout") == 2
    assert not target.connections
    client = await target.connect(tls=client_context(root, "h2"))
    assert (await client.response(client.call("/test.Raw/Echo", b"1"))).messages == [b"1"]
    client.close()
    await target.eventually(lambda: not target.connections)


async def test_plaintext_on_a_tls_port_fails_its_handshake_by_name(
    secure: tuple[Target, bytes],
) -> None:
    target, _ = secure
    client = await target.connect()
    await client.reader.read()
    failures = "grpc_server_handshake_failures_total"
    await target.eventually(lambda: target.changed(failures, reason="plaintext") == 1)


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
async def test_tls_without_h2_is_closed_by_name(
    secure: tuple[Target, bytes], protocols: tuple[str, ...]
) -> None:
    target, root = secure
    client = await target.connect(greeting=b"", tls=client_context(root, *protocols))
    assert await client.reader.read() == b""
    assert target.ended("alpn") == 1
    await target.eventually(lambda: not target.connections)


async def test_flood_of_connections_that_leave_at_once_is_survived(target: Target) -> None:
    host, _, port = target.server.address.rpartition(":")
    for _ in range(200):
        sock = socket.create_connection((host, int(port)))
        # Closed with a reset, so that nothing lingers.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    await target.recovers()
