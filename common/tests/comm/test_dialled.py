"""The message-stream face on the dialling side, with real servers that answer, refuse and leave."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from selvedge_common import comm

PATH = "/protos.Chaincode/Connect"
PATIENCE = 10.0

Serve = Callable[..., Awaitable[comm.GRPCServer]]
Connect = Callable[..., Any]
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Dial = Callable[..., Awaitable[tuple[grpc.StatusCode, str]]]


@pytest.fixture
def dial(serve: Serve, connect: Connect) -> Dial:
    """Serves `remote`, dials it, and runs `local` on the stream."""

    async def run(
        remote: comm.MessageStreamHandler,
        local: comm.MessageStreamHandler,
        config: comm.ServerConfig | None = None,
    ) -> tuple[grpc.StatusCode, str]:
        server = await serve(lambda s: s.add_message_stream(PATH, remote))
        return await comm.dial_message_stream(
            connect(server),
            PATH,
            local,
            config or comm.ServerConfig(),
            peer="dns:there",
            within=PATIENCE,
        )

    return run


async def wait_for_ever(_: comm.MessageStream) -> None:
    await asyncio.Event().wait()


class Recorder:
    """A handler that takes all messages and remembers how it ended."""

    def __init__(self, *sent: bytes) -> None:
        self._sent = sent
        self.received: list[bytes] = []
        self.stream: comm.MessageStream
        self.ended = ""

    async def __call__(self, stream: comm.MessageStream) -> None:
        self.stream = stream
        for message in self._sent:
            stream.send(message)
        try:
            await stream.receive(self.received.append)
            self.ended = "returned"
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


async def test_messages_of_the_server_end_with_its_ok(dial: Dial) -> None:
    async def remote(stream: comm.MessageStream) -> None:
        first = await anext(aiter(stream))
        for number in range(1000):
            stream.send(first + b"%d" % number)

    local = Recorder(b"x")
    assert await dial(remote, local) == (grpc.StatusCode.OK, "")
    assert local.received == [b"x%d" % number for number in range(1000)]
    assert (local.ended, local.stream.peer, local.stream.closed) == ("returned", "dns:there", True)
    assert not local.stream.auth_context()


async def test_a_stream_that_is_closed_here_sends_what_waits_and_half_closes(dial: Dial) -> None:
    remote = Recorder()

    async def local(stream: comm.MessageStream) -> None:
        for number in range(1000):
            stream.send(b"%d" % number)
        stream.close()
        await asyncio.Event().wait()

    assert await dial(remote, local) == (grpc.StatusCode.OK, "")
    assert remote.received == [b"%d" % number for number in range(1000)]
    assert remote.ended == "returned"


async def test_a_refusal_here_cancels_the_call_and_is_how_it_ended(
    dial: Dial, eventually: Eventually
) -> None:
    remote = Recorder(b"rubbish")

    def refuse(message: bytes) -> None:
        raise comm.StatusError(grpc.StatusCode.INVALID_ARGUMENT, f"{message!r} is no message")

    async def local(stream: comm.MessageStream) -> None:
        await stream.receive(refuse)

    ending = await dial(remote, local)
    assert ending == (grpc.StatusCode.INVALID_ARGUMENT, "b'rubbish' is no message")
    await eventually(lambda: remote.ended == "cancelled")


async def test_a_status_of_the_server_cancels_the_handler_and_is_how_it_ended(dial: Dial) -> None:
    async def remote(_: comm.MessageStream) -> None:
        raise comm.StatusError(grpc.StatusCode.ALREADY_EXISTS, "one peer is enough")

    local = Recorder()
    assert await dial(remote, local) == (grpc.StatusCode.ALREADY_EXISTS, "one peer is enough")
    assert local.ended == "cancelled"


async def test_a_server_that_goes_away_cancels_the_handler(
    serve: Serve, connect: Connect, eventually: Eventually
) -> None:
    remote, local = Recorder(b"there"), Recorder()
    server = await serve(lambda s: s.add_message_stream(PATH, remote))
    dialling = asyncio.create_task(
        comm.dial_message_stream(
            connect(server), PATH, local, comm.ServerConfig(), peer="", within=PATIENCE
        )
    )
    await eventually(lambda: bool(local.received))
    await server.stop(0)
    code, _ = await dialling
    assert code is not grpc.StatusCode.OK
    assert local.ended == "cancelled"


async def test_a_cancelled_caller_cancels_handler_and_call(
    serve: Serve, connect: Connect, eventually: Eventually
) -> None:
    remote, local = Recorder(b"there"), Recorder()
    server = await serve(lambda s: s.add_message_stream(PATH, remote))
    dialling = asyncio.create_task(
        comm.dial_message_stream(
            connect(server), PATH, local, comm.ServerConfig(), peer="", within=PATIENCE
        )
    )
    await eventually(lambda: bool(local.received))
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    assert local.ended == "cancelled"
    await eventually(lambda: remote.ended == "cancelled")


async def test_a_server_that_does_not_read_passes_the_bound_of_what_may_wait(dial: Dial) -> None:
    async def local(stream: comm.MessageStream) -> None:
        while True:
            stream.send(bytes(64 * 1024))
            await asyncio.sleep(0)

    config = comm.ServerConfig(stream=comm.StreamConfig(max_pending=1024 * 1024))
    code, details = await dial(wait_for_ever, local, config)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "bytes are waiting for a client that does not read them" in details


async def test_nobody_there_is_said_and_the_handler_never_runs(connect: Connect) -> None:
    local = Recorder()
    channel = comm.channel("127.0.0.1:1", root_cas=None)
    async with channel:
        code, details = await comm.dial_message_stream(
            channel, PATH, local, comm.ServerConfig(), peer="", within=PATIENCE
        )
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "Connection refused" in details
    assert not hasattr(local, "stream")


async def test_a_connection_that_does_not_come_is_given_up(connect: Connect) -> None:
    # It takes connections, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        async with comm.channel(f"{host}:{port}", root_cas=None) as channel:
            ending = await comm.dial_message_stream(
                channel, PATH, Recorder(), comm.ServerConfig(), peer="", within=0.05
            )
    assert ending == (grpc.StatusCode.UNAVAILABLE, "no connection within 0.05 s")


async def test_a_server_without_the_method_ends_the_stream_every_time(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(lambda _: None)
    channel = connect(server)
    # The refusal comes while the handler begins to read, or before it, or after.
    for _ in range(50):
        local = Recorder(b"hello")
        async with asyncio.timeout(PATIENCE):
            code, _details = await comm.dial_message_stream(
                channel, PATH, local, comm.ServerConfig(), peer="", within=PATIENCE
            )
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert local.ended in ("", "cancelled")
