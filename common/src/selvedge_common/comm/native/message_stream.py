"""The message-stream face over the native transport: one task a stream, that of its handler."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import grpc

from selvedge_common.comm.calls import Calls, code_of_cancelled, status_of
from selvedge_common.comm.errors import DETAILS_CHARACTERS, StatusError
from selvedge_common.comm.message_stream import MessageStreamHandler
from selvedge_common.comm.metrics import LIMITS, Method
from selvedge_common.comm.native.call import Call, MessageStreamMethod
from selvedge_common.comm.pending import PROCESS, BoundedStream
from selvedge_common.comm.settings import ServerConfig
from selvedge_common.quoting import printable


class NativeMessageStream(BoundedStream):
    """A MessageStream; see there for what its methods promise."""

    def __init__(self, call: Call, config: ServerConfig, method: Method) -> None:
        super().__init__(config, method)
        self._call = call
        self._stream = call.stream
        self._observed = method.call()
        self._count_sent = self._observed.sent
        self._timeout = call.time_remaining()
        self._counted = 0  # of what is pending, in the process
        self._closing = False
        self._aborted = False
        self._handling = True
        self._reading = False
        self._flushed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._closed = asyncio.Event()
        self._flush_timer: asyncio.TimerHandle | None = None

    @property
    def peer(self) -> str:
        return self._call.peer()

    @property
    def pending_bytes(self) -> int:
        return 0 if self._aborted else self._stream.outbox.bytes

    @property
    def full(self) -> bool:
        return self._stream.outbox.bytes > self._config.high_mark

    @property
    def status(self) -> tuple[grpc.StatusCode, str] | None:
        code = self._call.code()
        if code is None or self._call.client_left:
            return None
        return code, self._call.details()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return self._call.auth_context()

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return self._call.invocation_metadata()

    def time_remaining(self) -> float | None:
        return self._call.time_remaining()

    def send(self, message: bytes) -> None:
        if self._closing:
            return
        if len(message) > self._max_send_bytes:
            self._refuse_too_large(len(message))
            return
        self._count_sent()
        self._stream.send_message(message)
        if self._stream.outbox.bytes and not self._aborted:
            self._check_pending()

    async def drained(self) -> None:
        await self._drained.wait()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._begin_reading()
        message = await self._stream.inbox.read()
        self._reading = False
        if message is None:
            raise StopAsyncIteration
        self._observed.received()
        return message

    async def receive(self, on_message: Callable[[bytes], None]) -> None:
        count = self._observed.received

        def take(message: bytes) -> None:
            count()
            on_message(message)

        self._begin_reading()
        await self._stream.inbox.receive(take)
        self._reading = False

    def close(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "") -> None:
        if self._closing:
            return
        self._closing = True
        self._flush_timer = asyncio.get_running_loop().call_later(
            self._config.flush_timeout, self._flush_late
        )
        self._call.end(code, printable(details, DETAILS_CHARACTERS))

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        if self._aborted or self._closed.is_set():
            return
        self._closing = self._aborted = True
        self._call.end(code, printable(details, DETAILS_CHARACTERS), cut=True)
        self._forget_pending()
        self._stop()

    async def wait_closed(self) -> None:
        await self._closed.wait()

    # What its stream tells it

    def lost(self) -> None:
        """The client cancelled, or is gone."""
        self._closing = True
        self._forget_pending()
        self._call.lost()
        self._flushed.set()

    def refuse(self, refusal: StatusError, limit: str) -> None:
        """What the client sent, or does not read, is too much or wrong."""
        if limit:
            LIMITS.labels(limit).inc()
            self._method.overflow(limit)
        self.abort(refusal.code, refusal.details)

    def progressed(self) -> None:
        """Some of what waited left."""
        if self._aborted:
            return
        self._recount()
        if self._stream.outbox.bytes <= self._config.low_mark:
            self._drained.set()

    def sent_all(self) -> None:
        """Everything left, the status included."""
        self._stop()
        self._call.sent_all()

    # Its way

    async def serve(self, handler: MessageStreamHandler) -> None:
        """Run the whole stream, in the call's task."""
        self._stream.receiver = self
        PROCESS.streams.add(self)
        self._call.send_headers()
        try:
            try:
                await handler(self)
            except asyncio.CancelledError:
                self.close(grpc.StatusCode.CANCELLED, "The stream was cancelled by the server.")
            except Exception as error:
                self.close(*status_of(error, self._method.service, self._method.name))
            else:
                self.close()
            self._handling = False
            await self._flushed.wait()
        finally:
            self._finish()

    def _stop(self) -> None:
        """The stream is over: so is its handler."""
        self._flushed.set()
        if self._handling:
            self._call.task.cancel()

    def _finish(self) -> None:
        PROCESS.streams.discard(self)
        self._closing = True
        self._forget_pending()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        code = self._call.code()
        if self._call.client_left:
            code = code_of_cancelled(self._call, self._timeout)
        self._observed.finished(code)
        self._closed.set()

    def _begin_reading(self) -> None:
        # The transport would lose nothing; but what is written on this face must run on any.
        if self._reading:
            raise RuntimeError(
                "A message stream has one reader at a time, and none after a read was cancelled."
            )
        self._reading = True

    def _check_pending(self) -> None:
        pending = self._stream.outbox.bytes
        self._recount()
        if pending > self._config.low_mark:
            self._drained.clear()
        self._check_waiting(pending, len(self._stream.outbox))

    def _recount(self) -> None:
        pending = self._stream.outbox.bytes
        PROCESS.pending += pending - self._counted
        self._counted = pending

    def _forget_pending(self) -> None:
        PROCESS.pending -= self._counted
        self._counted = 0
        self._drained.set()

    def _flush_late(self) -> None:
        self._flush_expired(self._stream.outbox.bytes)


def method_handler(
    path: str, handler: MessageStreamHandler, config: ServerConfig, calls: Calls
) -> MessageStreamMethod:
    """What serves a message stream at `path`."""
    method = Method(path, "bidi_stream")

    async def serve(call: Call) -> None:
        with calls.running():
            await NativeMessageStream(call, config, method).serve(handler)

    return MessageStreamMethod(serve)
