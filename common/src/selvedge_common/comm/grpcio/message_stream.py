"""The message-stream face over grpcio: three tasks a stream, none a message.

gRPC's own task supervises; one task runs the handler, which also reads; one task writes, since
grpcio takes one write at a time on a stream.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # missing in the stubs

from selvedge_common.comm.calls import Calls, code_of_cancelled, status_of
from selvedge_common.comm.errors import DETAILS_CHARACTERS
from selvedge_common.comm.message_stream import MessageStreamHandler
from selvedge_common.comm.metrics import Method
from selvedge_common.comm.pending import PROCESS, BoundedStream
from selvedge_common.comm.settings import ServerConfig
from selvedge_common.quoting import printable

# grpcio tells a reader that there are no more messages just before it cancels the call of a
# client that left: microseconds as a rule, milliseconds on a busy machine. So a handler hears of
# a half-close this many seconds late, and a client that left seldom passes for one.
_HALF_CLOSE_DELAY = 0.025


class GrpcioStream(BoundedStream):
    """A MessageStream; see there for what its methods promise."""

    def __init__(
        self, context: "grpc.aio.ServicerContext[Any, Any]", config: ServerConfig, method: Method
    ) -> None:
        super().__init__(config, method)
        self._context = context
        self._call = method.call()
        self._timeout = context.time_remaining()
        self._queue: deque[bytes] = deque()
        self._pending = 0
        self._work = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._closed = asyncio.Event()
        self._status: tuple[grpc.StatusCode, str] | None = None
        self._aborted = False
        self._left = False  # the client has gone, or the server stops: nothing to say
        self._flush_timer: asyncio.TimerHandle | None = None
        self._reading = False
        self._handler: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    @property
    def peer(self) -> str:
        return self._context.peer()

    @property
    def pending_bytes(self) -> int:
        return self._pending

    @property
    def full(self) -> bool:
        return self._pending > self._config.high_mark

    @property
    def status(self) -> tuple[grpc.StatusCode, str] | None:
        return None if self._left else self._status

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {key: list(values) for key, values in self._context.auth_context().items()}

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return tuple(self._context.invocation_metadata() or ())

    def time_remaining(self) -> float | None:
        return self._context.time_remaining()

    def send(self, message: bytes) -> None:
        if self._status is not None:
            return
        size = len(message)
        if size > self._max_send_bytes:
            self._refuse_too_large(size)
            return
        self._queue.append(message)
        self._pending += size
        PROCESS.pending += size
        if self._pending > self._config.low_mark:
            self._drained.clear()
        self._check_waiting(self._pending, len(self._queue))
        self._work.set()

    async def drained(self) -> None:
        await self._drained.wait()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        message = await self._read()
        if message is None:
            raise StopAsyncIteration
        return message

    async def receive(self, on_message: Callable[[bytes], None]) -> None:
        while (message := await self._read()) is not None:
            on_message(message)

    def close(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "") -> None:
        if self._status is not None:
            return
        self._status = (code, printable(details, DETAILS_CHARACTERS))
        self._work.set()
        # Even when nothing is queued: the last message may be stuck on its way.
        self._flush_timer = asyncio.get_running_loop().call_later(
            self._config.flush_timeout, self._flush_late
        )

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        if self._aborted or self._closed.is_set():
            return
        self._aborted = True
        self._status = (code, printable(details, DETAILS_CHARACTERS))
        self._drop()
        if self._writer is not None:
            self._writer.cancel()

    async def wait_closed(self) -> None:
        await self._closed.wait()

    async def serve(self, handler: MessageStreamHandler) -> None:
        """Run the whole stream; gRPC's task for the call."""
        PROCESS.streams.add(self)
        try:
            # Not left to the first write: a status cannot be sent while the headers are on their
            # way, and an abort may come then.
            await self._context.send_initial_metadata(())
            self._handler = asyncio.create_task(self._handle(handler))
            self._writer = asyncio.create_task(self._write())
            await asyncio.wait((self._writer,))
            # The transport refuses a write once the client has gone, often before it says so.
            self._left = not self._writer.cancelled() and self._writer.exception() is not None
        except (asyncio.CancelledError, grpc.aio.BaseError):
            self._left = True
            raise
        finally:
            await self._finish()
        code, details = self.ending()
        if code is not grpc.StatusCode.OK and not self._left:
            await self._context.abort(code, details)

    async def _handle(self, handler: MessageStreamHandler) -> None:
        try:
            await handler(self)
        except asyncio.CancelledError:
            self.close(grpc.StatusCode.CANCELLED, "The stream was cancelled by the server.")
            raise
        except Exception as error:
            self.close(*status_of(error, self._method.service, self._method.name))
        else:
            self.close()

    async def _write(self) -> None:
        queue, low_mark = self._queue, self._config.low_mark
        write, count_sent = self._context.write, self._call.sent
        while True:
            while queue:
                message = queue.popleft()
                await write(message)
                count_sent()
                self._pending -= len(message)
                PROCESS.pending -= len(message)
                if self._pending <= low_mark:
                    self._drained.set()
            if self._status is not None:
                return
            self._work.clear()
            await self._work.wait()

    async def _read(self) -> bytes | None:
        if self._reading:
            raise RuntimeError(
                "A message stream has one reader at a time, and none after a read was cancelled."
            )
        self._reading = True
        try:
            message = await self._context.read()
        except grpc.aio.BaseError:
            # The call is over for gRPC. That is no fault of the handler's, which might catch it.
            self.close(grpc.StatusCode.UNAVAILABLE, "The server is stopping.")
            return None
        self._reading = False
        if message is EOF:
            await asyncio.sleep(_HALF_CLOSE_DELAY)
            return None
        self._call.received()
        return message  # type: ignore[no-any-return]  # the stubs know no raw messages

    async def _finish(self) -> None:
        """End handler and writer, and say so, before the status is handed to gRPC."""
        self._status = self.ending()  # so that nothing more is queued
        self._drop()
        PROCESS.streams.discard(self)
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        running = {task for task in (self._handler, self._writer) if task is not None}
        for task in running:
            task.cancel()
        while running:
            try:
                _, running = await asyncio.wait(running)
            except asyncio.CancelledError:
                self._left = True  # the client left meanwhile; the handler still cleans up
        code = self._status[0]
        if self._left:
            code = code_of_cancelled(self._context, self._timeout)
        self._call.finished(code)
        self._closed.set()

    def ending(self) -> tuple[grpc.StatusCode, str]:
        """The status decided on, or that of a stream which ends without a decision."""
        return self._status or (grpc.StatusCode.CANCELLED, "The stream was cancelled.")

    def _drop(self) -> None:
        self._queue.clear()
        PROCESS.pending -= self._pending
        self._pending = 0
        self._drained.set()

    def _flush_late(self) -> None:
        self._flush_expired(self._pending)


def method_handler(
    path: str, handler: MessageStreamHandler, config: ServerConfig, calls: Calls
) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """What gRPC calls for a message stream at `path`; messages stay serialised."""
    method = Method(path, "bidi_stream")

    async def serve(_: object, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        with calls.running():
            await GrpcioStream(context, config, method).serve(handler)

    return grpc.stream_stream_rpc_method_handler(serve)
