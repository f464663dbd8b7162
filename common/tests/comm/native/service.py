"""What the servers of these tests serve: one method for each way to treat a client."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # missing in the stubs

from selvedge_common import comm

SERVICE = "test.Raw"


@dataclass
class Service:
    """The handlers, and what became of them.

    Attributes:
        holding: handlers of Hold that began.
        cancelled: handlers that were cancelled.
        streams: the message streams that were opened.
        go_on: lets the handlers of Late go on.
    """

    holding: int = 0
    cancelled: int = 0
    streams: list[comm.MessageStream] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def add_to(self, server: comm.GRPCServer) -> None:
        """Register as generated code does."""
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
            "Hold": grpc.stream_stream_rpc_method_handler(self._hold),
            "Late": grpc.stream_stream_rpc_method_handler(self._late),
            "Send": grpc.unary_stream_rpc_method_handler(self._send),
        }
        server.add_registered_method_handlers(SERVICE, handlers)
        server.add_message_stream(f"/{SERVICE}/Stream", self._stream)
        server.add_message_stream(f"/{SERVICE}/Idle", self._idle)

    async def _echo(self, request: bytes, _: Any) -> bytes:
        return request

    async def _chat(self, _: AsyncIterator[bytes], context: Any) -> None:
        while (request := await context.read()) is not EOF:
            await context.write(request)

    async def _hold(self, _: AsyncIterator[bytes], __: Any) -> None:
        """Take nothing and say nothing."""
        self.holding += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _late(self, _: AsyncIterator[bytes], context: Any) -> None:
        """Take nothing until it is let go on, then echo."""
        await self.go_on.wait()
        while (request := await context.read()) is not EOF:
            await context.write(request)

    async def _send(self, request: bytes, _: Any) -> AsyncIterator[bytes]:
        """Send so many messages of so many bytes."""
        count, _, size = request.partition(b"*")
        if not (count.isdigit() and size.isdigit() and len(request) < 12):
            raise comm.StatusError(grpc.StatusCode.INVALID_ARGUMENT, "Say count*size.")
        try:
            for number in range(int(count)):
                yield bytes([number % 256]) * int(size)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def _stream(self, stream: comm.MessageStream) -> None:
        """Echo from within the turn of the loop in which a message arrives."""
        self.streams.append(stream)
        await stream.receive(stream.send)

    async def _idle(self, stream: comm.MessageStream) -> None:
        self.streams.append(stream)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
