"""The message-stream face over grpcio, with real clients that read, stop reading and leave."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from selvedge_common import comm

PATH = "/protos.Events/Chat"
LABELS = {"grpc_service": "protos.Events", "grpc_method": "Chat"}
Connect = Callable[..., Any]  # the stubs know no raw messages
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Count = Callable[..., float]


class Scene:
    """Runs a handler as a message stream and keeps the stream and how the handler ended."""

    def __init__(self, serve: Callable[..., Awaitable[comm.GRPCServer]], connect: Connect) -> None:
        self._serve = serve
        self._connect = connect
        self.ended: str | None = None

    async def open(
        self,
        handler: comm.MessageStreamHandler,
        stream: comm.StreamConfig | None = None,
        deadline: float | None = None,
        **limits: Any,
    ) -> Any:
        opened: asyncio.Future[comm.MessageStream] = asyncio.get_running_loop().create_future()

        async def run(served: comm.MessageStream) -> None:
            opened.set_result(served)
            try:
                await handler(served)
                self.ended = "returned"
            except asyncio.CancelledError:
                self.ended = "cancelled"
                raise
            except BaseException:
                self.ended = "raised"
                raise

        config = comm.ServerConfig(stream=stream or comm.StreamConfig(), **limits)
        self.server = await self._serve(lambda s: s.add_message_stream(PATH, run), config)
        # Without probing, a client that does not read takes 64 KB and no more.
        channel = self._connect(self.server, options=[("grpc.http2.bdp_probe", 0)])
        call = channel.stream_stream(PATH)(timeout=deadline, metadata=(("who", "tester"),))
        async with asyncio.timeout(10):
            self.stream = await opened
        return call


@pytest.fixture
def scene(serve: Callable[..., Awaitable[comm.GRPCServer]], connect: Connect) -> Scene:
    return Scene(serve, connect)


async def echo(stream: comm.MessageStream) -> None:
    async for message in stream:
        stream.send(message)


async def wait_for_ever(_: comm.MessageStream) -> None:
    await asyncio.Event().wait()


async def test_half_close_ends_ok_after_all_messages_in_order(scene: Scene) -> None:
    async def burst(stream: comm.MessageStream) -> None:
        received: list[bytes] = []
        await stream.receive(received.append)
        for message in received:
            for copy in range(100):
                stream.send(message + b"%d" % copy)

    call = await scene.open(burst)
    for name in (b"a", b"b"):
        await call.write(name)
    await call.done_writing()
    expected = [b"%s%d" % (name, copy) for name in (b"a", b"b") for copy in range(100)]
    assert [message async for message in call] == expected
    assert await call.code() is grpc.StatusCode.OK
    assert scene.ended == "returned"
    assert scene.stream.closed


async def test_callback_and_iteration_both_echo(scene: Scene) -> None:
    async def by_callback(stream: comm.MessageStream) -> None:
        await stream.receive(stream.send)

    for handler in (echo, by_callback):
        call = await scene.open(handler)
        for number in range(20):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK


async def test_second_reader_is_refused(scene: Scene) -> None:
    async def two(stream: comm.MessageStream) -> None:
        reading = asyncio.create_task(stream.receive(stream.send))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one reader"):
            await anext(aiter(stream))
        stream.send(b"refused")
        await reading

    call = await scene.open(two)
    assert await call.read() == b"refused"
    await call.write(b"the first reader goes on")
    assert await call.read() == b"the first reader goes on"
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK


async def test_reading_may_stop_and_go_on(scene: Scene) -> None:
    async def one_by_one(stream: comm.MessageStream) -> None:
        async for message in stream:
            stream.send(b"first " + message)
            break
        async for message in stream:
            stream.send(b"then " + message)

    call = await scene.open(one_by_one)
    for message in (b"a", b"b", b"c"):
        await call.write(message)
    await call.done_writing()
    assert [message async for message in call] == [b"first a", b"then b", b"then c"]


async def test_no_reading_after_a_cancelled_read(scene: Scene) -> None:
    async def impatient(stream: comm.MessageStream) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(stream)), 0.01)
        with pytest.raises(RuntimeError, match="after a read was cancelled"):
            await anext(aiter(stream))
        raise comm.StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "No message came.")

    call = await scene.open(impatient)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_what_is_known_of_the_client(scene: Scene) -> None:
    call = await scene.open(wait_for_ever, deadline=30)
    assert scene.stream.peer.startswith("ipv4:127.0.0.1:")
    assert ("who", "tester") in scene.stream.invocation_metadata()
    remaining = scene.stream.time_remaining()
    assert remaining is not None
    assert 29 < remaining < 31  # timeouts travel rounded up
    assert isinstance(scene.stream.auth_context(), dict)
    call.cancel()


async def test_client_certificate_is_known(
    serve: Callable[..., Awaitable[comm.GRPCServer]],
    connect: Connect,
    make_tls_authority: Callable[[str], Any],
) -> None:
    authority = make_tls_authority("root")
    client, secure = authority.issue("a client's name"), authority.mutual_tls()

    async def tell(stream: comm.MessageStream) -> None:
        stream.send(stream.auth_context()["x509_common_name"][0])
        stream.send(stream.auth_context()["x509_pem_cert"][0])

    server = await serve(lambda s: s.add_message_stream(PATH, tell), comm.ServerConfig(secure))
    channel = connect(
        server, root_cas=authority.root, certificate=client.certificate, key=client.key
    )
    call = channel.stream_stream(PATH)()
    assert [message async for message in call] == [b"a client's name", client.certificate]


async def test_deadline_is_none_without_one(scene: Scene) -> None:
    call = await scene.open(wait_for_ever)
    assert scene.stream.time_remaining() is None
    call.cancel()


async def test_status_error_follows_what_was_sent(scene: Scene) -> None:
    async def refuse(stream: comm.MessageStream) -> None:
        stream.send(b"before")
        raise comm.StatusError(grpc.StatusCode.PERMISSION_DENIED, "Not you.")

    call = await scene.open(refuse)
    assert await call.read() == b"before"
    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await call.details() == "Not you."


async def test_other_exceptions_become_internal_without_their_text(scene: Scene) -> None:
    async def fail(_: comm.MessageStream) -> None:
        raise KeyError("a secret of the inside")

    call = await scene.open(fail)
    assert await call.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in await call.details()
    assert "under id" in await call.details()


async def test_pending_bytes_grow_for_a_client_that_does_not_read_and_drain_when_it_does(
    scene: Scene, eventually: Eventually
) -> None:
    message, messages = b"x" * 100_000, 300
    drained = asyncio.Event()

    async def fill(stream: comm.MessageStream) -> None:
        for _ in range(messages):
            stream.send(message)
        await stream.drained()
        drained.set()
        assert stream.pending_bytes <= 1000
        assert not stream.full

    call = await scene.open(fill, comm.StreamConfig(low_mark=1000, high_mark=2000))
    # Nothing is read, so what is pending comes to rest above what gRPC takes.
    assert scene.stream.pending_bytes > 10_000_000
    assert scene.stream.full
    assert not drained.is_set()
    assert [len(received) async for received in call] == [len(message)] * messages
    await eventually(drained.is_set)
    assert await call.code() is grpc.StatusCode.OK
    assert scene.stream.pending_bytes == 0


async def test_stream_above_its_bound_is_ended_by_name(
    scene: Scene, count: Count, eventually: Eventually
) -> None:
    before = count("grpc_server_stream_overflows_total", bound="max_pending", **LABELS)

    async def flood(stream: comm.MessageStream) -> None:
        while True:
            stream.send(b"x" * 100_000)
            await asyncio.sleep(0)

    call = await scene.open(flood, comm.StreamConfig(max_pending=1_000_000))
    await eventually(lambda: scene.ended is not None)
    assert scene.ended == "cancelled"
    await asyncio.wait_for(scene.stream.wait_closed(), 10)
    assert scene.stream.pending_bytes == 0
    assert [len(message) async for message in _quietly(call)]
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "above the limit of 1000000 bytes" in await call.details()
    after = count("grpc_server_stream_overflows_total", bound="max_pending", **LABELS)
    assert after == before + 1


async def test_empty_messages_are_bounded_too(scene: Scene, eventually: Eventually) -> None:
    async def flood(stream: comm.MessageStream) -> None:
        # More than the client's window takes, empty as they are.
        for _ in range(100_000):
            stream.send(b"")
        await wait_for_ever(stream)

    call = await scene.open(flood, comm.StreamConfig(max_pending=10_000))
    await eventually(lambda: scene.stream.closed)
    assert {message async for message in _quietly(call)} <= {b""}
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_handler_that_cleans_up_after_the_client_left_sends_nothing(
    scene: Scene, count: Count
) -> None:
    before = count("grpc_server_stream_overflows_total", bound="flush_timeout", **LABELS)
    cleaned = asyncio.Event()

    async def careful(stream: comm.MessageStream) -> None:
        try:
            await wait_for_ever(stream)
        finally:
            stream.send(b"farewell")
            await asyncio.sleep(0)
            stream.close(grpc.StatusCode.ABORTED, "Too late to say.")
            cleaned.set()

    call = await scene.open(careful, comm.StreamConfig(flush_timeout=0.01))
    call.cancel()
    await asyncio.wait_for(scene.stream.wait_closed(), 10)
    assert cleaned.is_set()
    assert scene.stream.pending_bytes == 0
    after = count("grpc_server_stream_overflows_total", bound="flush_timeout", **LABELS)
    assert after == before


async def _quietly(call: Any) -> Any:
    """The messages of a call that ends with an error."""
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError:
        return


async def test_message_above_the_send_limit_ends_the_stream_by_name(scene: Scene) -> None:
    async def send_much(stream: comm.MessageStream) -> None:
        stream.send(b"x" * 1001)
        await wait_for_ever(stream)

    call = await scene.open(send_much, max_send_bytes=1000)
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1001 bytes is above this listener's limit of 1000" in await call.details()


async def test_message_above_the_send_limit_lets_those_before_it_go_first(scene: Scene) -> None:
    async def send_much(stream: comm.MessageStream) -> None:
        for number in range(100):
            stream.send(b"%d" % number)
        stream.send(b"x" * (stream.max_message_bytes + 1))
        stream.send(b"too late")
        await wait_for_ever(stream)

    call = await scene.open(send_much, max_send_bytes=1000)
    assert scene.stream.max_message_bytes == 1000
    assert [message async for message in _quietly(call)] == [b"%d" % n for n in range(100)]
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert scene.ended == "cancelled"


async def test_above_the_bound_of_the_process_the_stream_with_the_most_is_ended(
    scene: Scene, count: Count
) -> None:
    bound = {"bound": "max_pending_in_process", **LABELS}
    before = count("grpc_server_stream_overflows_total", **bound)

    def fill(messages: int) -> comm.MessageStreamHandler:
        async def send(stream: comm.MessageStream) -> None:
            for _ in range(messages):
                stream.send(b"x" * 100_000)
            await wait_for_ever(stream)

        return send

    # No client reads; gRPC takes a part of what is sent all the same.
    config = comm.StreamConfig(max_pending_in_process=21_500_000)
    calls, streams = [], []
    for messages in (10, 200, 190):
        calls.append(await scene.open(fill(messages), config))
        streams.append(scene.stream)
    await asyncio.wait_for(streams[1].wait_closed(), 10)
    assert [stream.closed for stream in streams] == [False, True, False]
    pending = [stream.pending_bytes for stream in streams]
    assert pending[1] == 0
    assert count("grpc_server_stream_pending_bytes") == sum(pending) > 0
    assert count("grpc_server_stream_overflows_total", **bound) == before + 1
    assert [message async for message in _quietly(calls[1])]
    assert await calls[1].code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "above the limit of 21500000 bytes" in await calls[1].details()
    for number in (0, 2):
        calls[number].cancel()
        await asyncio.wait_for(streams[number].wait_closed(), 10)
    assert count("grpc_server_stream_pending_bytes") == 0


async def test_details_of_a_status_are_bounded_and_printable(scene: Scene) -> None:
    async def refuse(stream: comm.MessageStream) -> None:
        stream.close(grpc.StatusCode.ABORTED, "\n" + "x" * 30_000_000)

    call = await scene.open(refuse)
    assert await call.details() == "\\n" + "x" * 999 + "…"


async def test_message_above_the_receive_limit_ends_the_stream_by_name(
    scene: Scene, eventually: Eventually
) -> None:
    call = await scene.open(echo, max_receive_bytes=1000)
    await call.write(b"x" * 1001)
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1001" in await call.details()
    assert "1000" in await call.details()
    await eventually(lambda: scene.stream.closed)


async def test_close_from_outside_sends_what_is_queued_first(
    scene: Scene, eventually: Eventually
) -> None:
    call = await scene.open(wait_for_ever)
    for number in range(50):
        scene.stream.send(b"%d" % number)
    scene.stream.close(grpc.StatusCode.UNAVAILABLE, "Moved away.")
    scene.stream.send(b"too late")
    assert [m async for m in _quietly(call)] == [b"%d" % number for number in range(50)]
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert await call.details() == "Moved away."
    await eventually(lambda: scene.ended == "cancelled")
    await asyncio.wait_for(scene.stream.wait_closed(), 10)


async def test_abort_from_outside_drops_what_is_queued_and_ends_the_handler(
    scene: Scene, eventually: Eventually
) -> None:
    call = await scene.open(wait_for_ever)
    for _ in range(300):
        scene.stream.send(b"x" * 100_000)
    waiting = asyncio.create_task(scene.stream.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    scene.stream.abort(grpc.StatusCode.ABORTED, "Enough.")
    scene.stream.abort(grpc.StatusCode.INTERNAL, "The first status holds.")
    scene.stream.close()
    await asyncio.wait_for(waiting, 10)
    await asyncio.wait_for(scene.stream.wait_closed(), 10)
    assert scene.ended == "cancelled"
    assert scene.stream.pending_bytes == 0
    assert len([m async for m in _quietly(call)]) < 300
    assert await call.code() is grpc.StatusCode.ABORTED
    assert await call.details() == "Enough."


async def test_abort_by_the_handler_itself(scene: Scene) -> None:
    async def abort(stream: comm.MessageStream) -> None:
        stream.abort(grpc.StatusCode.ABORTED, "Enough.")
        await wait_for_ever(stream)

    call = await scene.open(abort)
    assert await call.code() is grpc.StatusCode.ABORTED
    assert await call.details() == "Enough."


async def test_client_that_never_reads_the_end_is_given_up(
    scene: Scene, count: Count, eventually: Eventually
) -> None:
    before = count("grpc_server_stream_overflows_total", bound="flush_timeout", **LABELS)

    async def fill(stream: comm.MessageStream) -> None:
        for _ in range(300):
            stream.send(b"x" * 100_000)

    call = await scene.open(fill, comm.StreamConfig(flush_timeout=0.2))
    await asyncio.wait_for(scene.stream.wait_closed(), 10)
    after = count("grpc_server_stream_overflows_total", bound="flush_timeout", **LABELS)
    assert after == before + 1
    assert len([m async for m in _quietly(call)]) < 300
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "were not read within 0.2 seconds" in await call.details()


async def test_client_cancel_cancels_the_handler(
    scene: Scene, count: Count, eventually: Eventually
) -> None:
    labels = LABELS | {"grpc_type": "bidi_stream", "grpc_code": "Canceled"}
    before = count("grpc_server_handled_total", **labels)
    call = await scene.open(wait_for_ever)
    call.cancel()
    await asyncio.wait_for(scene.stream.wait_closed(), 10)
    assert scene.ended == "cancelled"
    assert count("grpc_server_handled_total", **labels) == before + 1
    scene.stream.send(b"ignored")
    await scene.stream.drained()
    assert scene.stream.pending_bytes == 0


async def test_client_cancel_seldom_passes_for_a_half_close_to_a_handler_that_reads(
    scene: Scene,
) -> None:
    endings = []
    for _ in range(20):
        call = await scene.open(echo)
        await call.write(b"1")
        await call.read()
        call.cancel()
        await asyncio.wait_for(scene.stream.wait_closed(), 10)
        endings.append(scene.ended)
    # grpcio tells of both in two steps; on a busy machine the second may come late.
    assert endings.count("cancelled") >= 18


async def test_client_that_vanishes_while_written_to_cancels_the_handler(scene: Scene) -> None:
    async def flood(stream: comm.MessageStream) -> None:
        while True:
            stream.send(b"x" * 100_000)
            await stream.drained()

    call = await scene.open(flood)
    await call.read()
    call.cancel()
    await asyncio.wait_for(scene.stream.wait_closed(), 10)
    assert scene.ended == "cancelled"


async def test_deadline_cancels_the_handler(scene: Scene, count: Count) -> None:
    labels = LABELS | {"grpc_type": "bidi_stream", "grpc_code": "DeadlineExceeded"}
    before = count("grpc_server_handled_total", **labels)
    await scene.open(wait_for_ever, deadline=0.5)
    await asyncio.wait_for(scene.stream.wait_closed(), 10)
    assert scene.ended == "cancelled"
    assert count("grpc_server_handled_total", **labels) == before + 1


async def test_messages_are_counted(scene: Scene, count: Count) -> None:
    labels = LABELS | {"grpc_type": "bidi_stream"}

    def counts() -> list[float]:
        names = ("started_total", "msg_received_total", "msg_sent_total", "handling_seconds_count")
        return [count(f"grpc_server_{name}", **labels) for name in names]

    async def thrice(stream: comm.MessageStream) -> None:
        async for message in stream:
            for _ in range(3):
                stream.send(message)

    before = counts()
    call = await scene.open(thrice)
    await call.write(b"1")
    await call.done_writing()
    assert len([message async for message in call]) == 3
    await asyncio.wait_for(scene.stream.wait_closed(), 10)
    assert [b - a for a, b in zip(before, counts(), strict=True)] == [1, 1, 3, 1]


async def test_stop_cancels_the_handlers_after_the_grace(scene: Scene) -> None:
    call = await scene.open(wait_for_ever)
    await scene.server.stop(0.1)
    assert scene.ended == "cancelled"
    assert await call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.mark.parametrize("path", ["Chat", "/Chat", "/protos.Events/", "protos.Events/Chat"])
async def test_malformed_path_is_refused(path: str) -> None:
    server = comm.GRPCServer("127.0.0.1:0", comm.ServerConfig())
    with pytest.raises(comm.CommError, match="malformed"):
        server.add_message_stream(path, echo)
    await server.stop(0)
