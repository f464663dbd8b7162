"""Who calls a service at the address of another one is told where it is."""

from typing import Any

import grpc
import grpc.aio
import pytest

from selvedge_common import comm

CONFIG = comm.ServerConfig(elsewhere={"protos.ChaincodeSupport": "peer:7052, where it dials in"})


def nothing(_: comm.GRPCServer) -> None: ...


async def test_a_stream_is_told_where_its_service_is(serve: Any, connect: Any) -> None:
    channel = connect(await serve(nothing, CONFIG))
    call = channel.stream_stream("/protos.ChaincodeSupport/Register")()
    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
    assert await call.details() == (
        "protos.ChaincodeSupport is not served here: dial peer:7052, where it dials in."
    )


async def test_a_unary_call_is_told_too_and_others_are_not(serve: Any, connect: Any) -> None:
    channel = connect(await serve(nothing, CONFIG))
    for path, told in (("/protos.ChaincodeSupport/Other", True), ("/no.such.Service/Any", False)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(path)(b"", timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert ("dial peer:7052" in (refused.value.details() or "")) is told


async def test_what_is_served_here_is_served(serve: Any, connect: Any) -> None:
    async def echo(stream: comm.MessageStream) -> None:
        await stream.receive(stream.send)

    def prepare(server: comm.GRPCServer) -> None:
        server.add_message_stream("/protos.ChaincodeSupport/Register", echo)

    channel = connect(await serve(prepare, CONFIG))
    call = channel.stream_stream("/protos.ChaincodeSupport/Register")()
    await call.write(b"hello")
    assert await call.read() == b"hello"
