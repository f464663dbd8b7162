"""Addresses, listeners, limits, keepalive, statuses, metrics and health of GRPCServer."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from selvedge_common import comm

Serve = Callable[..., Awaitable[comm.GRPCServer]]
Connect = Callable[..., Any]  # the stubs know no raw messages
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
SERVICE = "test.Echo"


async def _unary(request: bytes, context: Any) -> bytes:
    if request == b"refuse":
        raise comm.StatusError(grpc.StatusCode.FAILED_PRECONDITION, "Not in this state.")
    if request == b"abort":
        await context.abort(grpc.StatusCode.ABORTED, "By the context.")
    if request == b"fail":
        raise KeyError("a secret of the inside")
    if request == b"wait":
        await asyncio.Event().wait()
    return b"x" * int(request[1:]) if request.startswith(b"*") else request


async def _generate(request: bytes, _: Any) -> AsyncIterator[bytes]:
    for _number in range(3):
        yield request


async def _collect(requests: AsyncIterator[bytes], _: Any) -> bytes:
    return b"".join([request async for request in requests])


async def _both(_: AsyncIterator[bytes], context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
        await context.write(message)


def add_echo(server: comm.GRPCServer) -> None:
    """Register as generated code does."""
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Generate": grpc.unary_stream_rpc_method_handler(_generate),
        "Collect": grpc.stream_unary_rpc_method_handler(_collect),
        "Both": grpc.stream_stream_rpc_method_handler(_both),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


async def _refusal(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("", "Missing address parameter"),
        ("localhost", "has no port"),
        ("localhost:http", "has no port"),
        ("localhost:70000", "has no port"),
        ("::1:80", "ambiguous"),
        ("no-such-host.invalid:0", "Cannot listen on no-such-host.invalid:0"),
        ("192.0.2.1:0", "Cannot listen on 192.0.2.1:0"),
    ],
)
async def test_address_that_cannot_be_used_is_refused(address: str, sentence: str) -> None:
    with pytest.raises(comm.AddressError, match=sentence):
        comm.GRPCServer(address, comm.ServerConfig())


async def test_address_is_held_from_construction_until_stop(transport: Any) -> None:
    config = comm.ServerConfig(transport=transport)
    server = comm.GRPCServer("127.0.0.1:0", config)
    port = int(server.address.rpartition(":")[2])
    assert port > 0
    assert server.listener.getsockname() == ("127.0.0.1", port)
    for _ in range(2):
        with pytest.raises(comm.AddressError, match="already in use"):
            comm.GRPCServer(server.address, config)
        if not server.services:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            add_echo(server)
            await server.start()
    await server.stop(0)
    await comm.GRPCServer(server.address, config).stop(0)


@pytest.mark.parametrize("address", ["localhost:0", ":0", "0.0.0.0:0", "[::]:0", "[::1]:0"])
async def test_every_form_of_address_is_served(address: str, transport: Any) -> None:
    server = comm.GRPCServer(address, comm.ServerConfig(transport=transport))
    await server.start()
    try:
        port = int(server.address.rpartition(":")[2])
        host = "::1" if address == "[::1]:0" else "127.0.0.1"
        await _greeted(host, port)
    finally:
        await server.stop(0)


async def _greeted(host: str, port: int) -> None:
    """Connect, begin, and wait for the server's first HTTP/2 frame."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(_PREFACE)
        assert len(await reader.readexactly(9)) == 9
        writer.close()
        await writer.wait_closed()


async def test_every_connection_to_an_open_listener_reaches_the_server() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    host, port = listener.getsockname()
    server = comm.GRPCServer.from_listener(listener, comm.ServerConfig(transport="native"))
    assert server.address == f"{host}:{port}"
    early = [asyncio.create_task(_greeted(host, port)) for _ in range(10)]
    await asyncio.sleep(0)
    await server.start()
    try:
        await asyncio.gather(*early)
        for _ in range(20):
            await asyncio.gather(*(_greeted(host, port) for _ in range(10)))
    finally:
        await server.stop(0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)


async def test_grpcio_says_that_it_cannot_serve_on_an_open_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(comm.CommError, match="cannot serve on an open listener; use native"):
            comm.GRPCServer.from_listener(listener, comm.ServerConfig(transport="grpcio"))
        # Nothing was done to it.
        socket.create_connection(listener.getsockname()).close()


async def test_connections_that_linger_from_the_port_s_last_server_do_not_keep_it(
    transport: Any,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as last:
        last_port = last.getsockname()[1]
        address = f"127.0.0.1:{last_port}"
        with socket.create_connection(last.getsockname()) as client:
            served, _ = last.accept()
            served.close()  # first, so that this side is left in TIME_WAIT
            assert client.recv(1) == b""
    config = comm.ServerConfig(transport=transport)
    server = comm.GRPCServer(address, config)
    with pytest.raises(comm.AddressError, match="already in use"):
        comm.GRPCServer(address, config)
    await server.start()
    await _greeted("127.0.0.1", last_port)
    await server.stop(0)


async def test_listener_that_is_no_bound_tcp_socket_is_refused() -> None:
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as unbound:
        with pytest.raises(comm.AddressError, match="not a TCP socket"):
            comm.GRPCServer.from_listener(unix, comm.ServerConfig())
        with pytest.raises(comm.AddressError, match="not bound"):
            comm.GRPCServer.from_listener(unbound, comm.ServerConfig())


async def test_messages_above_the_limits_are_refused_by_name(
    serve: Serve, connect: Connect
) -> None:
    config = comm.ServerConfig(max_receive_bytes=1000, max_send_bytes=2000)
    unary = connect(await serve(add_echo, config)).unary_unary(f"/{SERVICE}/Unary")
    assert await unary(b"x" * 1000) == b"x" * 1000
    error = await _refusal(unary(b"x" * 1001))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1001" in str(error.details())
    assert "1000" in str(error.details())
    assert len(await unary(b"*2000")) == 2000
    error = await _refusal(unary(b"*2001"))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await unary(b"still here") == b"still here"


async def test_handlers_exceptions_become_statuses(serve: Serve, connect: Connect) -> None:
    unary = connect(await serve(add_echo)).unary_unary(f"/{SERVICE}/Unary")
    error = await _refusal(unary(b"refuse"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "Not in this state."
    error = await _refusal(unary(b"abort"))
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "By the context.")
    error = await _refusal(unary(b"fail"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error.details())
    assert "under id" in str(error.details())


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_request_that_is_not_its_message_is_refused_with_a_sentence(
    serve: Serve, connect: Connect, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def collect(requests: AsyncIterator[Any], _: Any) -> Any:
        async for request in requests:
            return request
        return None

    async def check(request: Any, _: Any) -> Any:
        return health_pb2.HealthCheckResponse()

    async def watch(request: Any, _: Any) -> Any:
        yield health_pb2.HealthCheckResponse()

    handle = {
        "unary_unary": check,
        "unary_stream": watch,
        "stream_unary": collect,
        "stream_stream": _both,
    }[kind]
    method = getattr(grpc, f"{kind}_rpc_method_handler")(
        handle, health_pb2.HealthCheckRequest.FromString, lambda response: b""
    )
    server = await serve(lambda s: s.add_registered_method_handlers(SERVICE, {"Take": method}))
    caller = getattr(connect(server), kind)(f"/{SERVICE}/Take")
    for request, code in ((b"", "OK"), (b"\xff\xff", "INVALID_ARGUMENT")):
        streaming = kind.startswith("stream")
        call = caller(iter([request])) if streaming else caller(request)
        if kind.endswith("stream"):
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert [message async for message in call] == [b""]
        assert (await call.code()).name == code
    assert "The 2 bytes sent to Take are not the message that it takes" in await call.details()
    assert not [record for record in caplog.records if record.exc_info]


def test_details_of_a_status_are_bounded_and_printable() -> None:
    error = comm.StatusError(grpc.StatusCode.ABORTED, "\x1b" + "x" * 30_000_000)
    assert error.details == "\\x1b" + "x" * 999 + "…"
    assert len(str(error)) < 1100


async def test_every_call_is_counted(
    serve: Serve, connect: Connect, count: Callable[..., float], eventually: Eventually
) -> None:
    channel = connect(await serve(add_echo))

    def counted(name: str, method: str, kind: str, **labels: str) -> float:
        labels |= {"grpc_service": SERVICE, "grpc_method": method, "grpc_type": kind}
        return count(f"grpc_server_{name}", **labels)

    async def both() -> None:
        call = channel.stream_stream(f"/{SERVICE}/Both")()
        await call.write(b"1")
        await call.read()
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK

    async def generate() -> None:
        assert len([m async for m in channel.unary_stream(f"/{SERVICE}/Generate")(b"1")]) == 3

    async def collect() -> None:
        assert await channel.stream_unary(f"/{SERVICE}/Collect")(iter([b"1", b"2"])) == b"12"

    async def unary() -> None:
        await channel.unary_unary(f"/{SERVICE}/Unary")(b"1")

    table = [
        (unary, "Unary", "unary", 1, 1),
        (generate, "Generate", "server_stream", 1, 3),
        (collect, "Collect", "client_stream", 2, 1),
        (both, "Both", "bidi_stream", 1, 1),
    ]
    for call, method, kind, received, sent in table:
        names = ["started_total", "msg_received_total", "msg_sent_total", "handling_seconds_count"]
        before = [counted(name, method, kind) for name in names]
        handled = counted("handled_total", method, kind, grpc_code="OK")
        await call()
        await eventually(
            lambda m=method, k=kind, h=handled: (  # type: ignore[misc]
                counted("handled_total", m, k, grpc_code="OK") == h + 1
            )
        )
        after = [counted(name, method, kind) for name in names]
        assert [b - a for a, b in zip(before, after, strict=True)] == [1, received, sent, 1], method

    async def code_of(request: bytes, code: str) -> None:
        before = counted("handled_total", "Unary", "unary", grpc_code=code)
        await _refusal(channel.unary_unary(f"/{SERVICE}/Unary")(request, timeout=0.3))
        await eventually(
            lambda: counted("handled_total", "Unary", "unary", grpc_code=code) == before + 1
        )

    await code_of(b"refuse", "FailedPrecondition")
    await code_of(b"abort", "Aborted")
    await code_of(b"fail", "Internal")
    await code_of(b"wait", "DeadlineExceeded")


async def test_unknown_methods_share_one_label(
    serve: Serve, connect: Connect, count: Callable[..., float]
) -> None:
    labels = {"grpc_service": "unknown", "grpc_method": "unknown", "grpc_type": "unknown"}
    before = count("grpc_server_handled_total", grpc_code="Unimplemented", **labels)
    channel = connect(await serve(add_echo))
    for path in (f"/{SERVICE}/None", "/none.Such/Method", "/nothing"):
        error = await _refusal(channel.unary_unary(path)(b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    after = count("grpc_server_handled_total", grpc_code="Unimplemented", **labels)
    assert after == before + 3


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS, _PING, _GOAWAY = 4, 6, 7


async def _ping(server: comm.GRPCServer, pings: int) -> tuple[int, bytes]:
    """Ping in a row without any call; the answers, and what the connection was ended with."""
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(_PREFACE + _frame(_SETTINGS, b""))
    answers = 0
    async with asyncio.timeout(10):
        for number in range(pings):
            writer.write(_frame(_PING, number.to_bytes(8)))
            kind = payload = None
            while kind not in (_PING, _GOAWAY):
                head = await reader.readexactly(9)
                kind = head[3]
                payload = await reader.readexactly(int.from_bytes(head[:3]))
            if kind == _GOAWAY:
                writer.close()
                return answers, payload or b""
            answers += 1
    writer.close()
    return answers, b""


def _frame(kind: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, 0, 0, 0, 0, 0]) + payload


async def test_clients_may_ping_often_without_a_call(serve: Serve) -> None:
    assert await _ping(await serve(add_echo), 20) == (20, b"")


async def test_pings_that_come_too_early_end_the_connection_if_so_set(serve: Serve) -> None:
    keepalive = comm.KeepaliveConfig(min_ping_interval=30, max_ping_strikes=2)
    server = await serve(add_echo, comm.ServerConfig(keepalive=keepalive))
    answers, reason = await _ping(server, 20)
    assert answers < 5
    assert b"too_many_pings" in reason


async def test_pings_as_far_apart_as_allowed_are_no_strikes(serve: Serve) -> None:
    keepalive = comm.KeepaliveConfig(min_ping_interval=0, max_ping_strikes=1)
    server = await serve(add_echo, comm.ServerConfig(keepalive=keepalive))
    assert await _ping(server, 20) == (20, b"")


async def test_server_pings_a_silent_client_and_leaves_a_dead_one(serve: Serve) -> None:
    keepalive = comm.KeepaliveConfig(interval=0.1, timeout=0.2)
    server = await serve(add_echo, comm.ServerConfig(keepalive=keepalive))
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(_PREFACE + _frame(_SETTINGS, b""))
    kinds = set()
    try:
        async with asyncio.timeout(10):
            while head := await reader.read(9):  # until the server closes
                kinds.add(head[3])
                await reader.readexactly(int.from_bytes(head[:3]))
    finally:
        writer.close()
    assert {_PING, _GOAWAY} <= kinds


async def test_idle_client_that_answers_pings_stays(serve: Serve, connect: Connect) -> None:
    keepalive = comm.KeepaliveConfig(interval=0.05, timeout=0.05)
    server = await serve(add_echo, comm.ServerConfig(keepalive=keepalive))
    call = connect(server).stream_stream(f"/{SERVICE}/Both")()
    await call.write(b"1")
    assert await call.read() == b"1"
    # It is silence itself that is waited for.
    await asyncio.sleep(1)
    await call.write(b"still here")
    assert await call.read() == b"still here"
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK


async def test_health_tells_of_each_service_and_of_stopping(serve: Serve, connect: Connect) -> None:
    server = await serve(add_echo)
    stub = health_pb2_grpc.HealthStub(connect(server))
    serving = health_pb2.HealthCheckResponse.SERVING
    not_serving = health_pb2.HealthCheckResponse.NOT_SERVING

    async def check(service: str) -> Any:
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status

    assert await check("") == serving
    assert await check(SERVICE) == serving
    error = await _refusal(stub.Check(health_pb2.HealthCheckRequest(service="none.Such")))
    assert error.code() is grpc.StatusCode.NOT_FOUND

    watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert (await watch.read()).status == serving
    server.set_serving(SERVICE, False)
    assert (await watch.read()).status == not_serving
    assert await check(SERVICE) == not_serving
    assert await check("") == serving
    server.set_serving(SERVICE, True)
    assert (await watch.read()).status == serving
    stopping = asyncio.create_task(server.stop(5))
    assert (await watch.read()).status == not_serving
    server.set_serving(SERVICE, True)
    watch.cancel()
    await stopping
    await server.wait_for_termination()


async def test_service_set_aside_before_start_does_not_serve(
    connect: Connect, transport: Any
) -> None:
    server = comm.GRPCServer("127.0.0.1:0", comm.ServerConfig(transport=transport))
    add_echo(server)
    server.set_serving(SERVICE, False)
    await server.start()
    try:
        answer = await health_pb2_grpc.HealthStub(connect(server)).Check(
            health_pb2.HealthCheckRequest(service=SERVICE)
        )
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    finally:
        await server.stop(0)


async def test_stop_lets_calls_finish_within_the_grace(serve: Serve, connect: Connect) -> None:
    server = await serve(add_echo)
    call = connect(server).stream_stream(f"/{SERVICE}/Both")()
    await call.write(b"1")
    assert await call.read() == b"1"
    stopping = asyncio.create_task(server.stop(10))
    await call.write(b"2")
    assert await call.read() == b"2"
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
    await stopping


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"address": ""}, "Missing address parameter"),
        ({"certificate": b"c", "root_cas": b"r"}, "go together"),
        ({"certificate": b"c", "key": b"k"}, "needs TLS"),
    ],
)
async def test_channel_that_cannot_be_made_is_refused(
    arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(comm.CommError, match=sentence):
        comm.channel(**{"address": "localhost:1", "root_cas": None} | arguments)


def test_unknown_transport_is_refused() -> None:
    with pytest.raises(comm.CommError, match="unknown; use native or grpcio"):
        comm.ServerConfig(transport="carrier pigeon")  # type: ignore[arg-type]
