"""The message-stream face over a call that this process makes, as a server has it over its own.

Who dials and who serves are turned round: what is written on the face need not know.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from selvedge_common.comm.grpcio.message_stream import GrpcioStream
from selvedge_common.comm.message_stream import MessageStreamHandler
from selvedge_common.comm.metrics import Method
from selvedge_common.comm.settings import ServerConfig

# Seconds that a server may take to end a stream that this side has ended.
_FAREWELL = 5.0


async def dial_message_stream(
    channel: grpc.aio.Channel,
    path: str,
    handler: MessageStreamHandler,
    config: ServerConfig,
    *,
    peer: str,
    within: float,
) -> tuple[grpc.StatusCode, str]:
    """Open a stream, and run `handler` on it until it ends.

    `MessageStream` promises the handler the same as on a server's stream: it is cancelled when the
    connection or the call breaks, and its messages end when the server ends the call with OK. It
    counts in `grpc_server_*` as the streams do that others open. Cancelling the caller ends all.

    Args:
        channel: where the server is.
        path: of the method, `/package.Service/Method`.
        config: its bounds of messages and of streams.
        peer: the server's name, for the handler.
        within: seconds in which there must be a connection; otherwise the handler never runs.

    Returns:
        How it ended: as the handler ended it, or as the server or the connection did.
    """
    untyped: Any = channel  # the stubs know no raw messages
    call = untyped.stream_stream(path)()
    try:
        try:
            async with asyncio.timeout(within):
                await call.wait_for_connection()
        except TimeoutError:
            return grpc.StatusCode.UNAVAILABLE, f"no connection within {within:g} s"
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        # The face of grpc.aio's servicer context, as far as a GrpcioStream needs it.
        context: Any = _Context(call, peer)
        stream = GrpcioStream(context, config, Method(path, "bidi_stream"))
        await _serve(stream, call, handler)
        if call.done() and not call.cancelled() and await call.code() is not grpc.StatusCode.OK:
            return await call.code(), await call.details()
        return stream.ending()
    finally:
        call.cancel()


async def _serve(stream: GrpcioStream, call: Any, handler: MessageStreamHandler) -> None:
    serving = asyncio.create_task(stream.serve(handler))
    watching = asyncio.create_task(_cancel_when_broken(call, serving))
    try:
        await asyncio.wait((serving,))
        if not serving.cancelled():
            serving.result()
        if stream.ending()[0] is grpc.StatusCode.OK:
            await call.done_writing()
            await asyncio.wait((watching,), timeout=_FAREWELL)
    finally:
        for task in (serving, watching):
            task.cancel()
        await asyncio.gather(serving, watching, return_exceptions=True)


async def _cancel_when_broken(call: Any, serving: asyncio.Task[None]) -> None:
    """Do what gRPC does with a server's handler. An end with OK is left to whoever reads: there may
    be messages before it."""
    if await call.code() is not grpc.StatusCode.OK:
        serving.cancel()


class _Context:
    """A call as a servicer context."""

    def __init__(self, call: Any, peer: str) -> None:
        self._call = call
        self._peer = peer
        self.write = call.write

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {}  # gRPC tells a client nothing of its server

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return ()

    def time_remaining(self) -> float | None:
        return None

    async def send_initial_metadata(self, metadata: object) -> None:
        """They are sent already."""

    async def read(self) -> Any:
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError:
            # It broke: to a handler that is a cancellation, and one may have been lost in this.
            raise asyncio.CancelledError from None

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self._call.cancel()
