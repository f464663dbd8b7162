"""One gRPC call: what its handler sees of it, and the task that runs the handler."""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # missing in the stubs

from selvedge_common.comm.calls import status_of
from selvedge_common.comm.errors import StatusError
from selvedge_common.comm.metrics import LIMITS
from selvedge_common.comm.native import headers
from selvedge_common.comm.native.headers import Metadata
from selvedge_common.comm.native.messages import compress
from selvedge_common.comm.native.stream import Stream
from selvedge_common.comm.native.wakeup import Wakeup
from selvedge_common.quoting import printable

# A handler that writes waits while more than this waits for the client.
_WRITE_AHEAD = 64 * 1024
_COMPRESSION = {
    grpc.Compression.NoCompression: "identity",
    grpc.Compression.Deflate: "deflate",
    grpc.Compression.Gzip: "gzip",
}
Handler = Any  # grpc.RpcMethodHandler; its stubs are generic, the class is not


class MessageStreamMethod(grpc.RpcMethodHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """A method that is served by the message-stream face.

    To interceptors it looks like any bidirectional method.
    """

    request_streaming = True
    response_streaming = True
    request_deserializer = None
    response_serializer = None
    unary_unary = unary_stream = stream_unary = stream_stream = None

    def __init__(self, serve: "Callable[[Call], Awaitable[None]]") -> None:
        self.serve = serve


class Details:
    """A grpc.HandlerCallDetails."""

    __slots__ = ("invocation_metadata", "method")

    def __init__(self, method: str, invocation_metadata: Metadata) -> None:
        self.method = method
        self.invocation_metadata = invocation_metadata


class Methods(Protocol):
    """Finds what serves a call."""

    async def find(self, details: Details) -> Handler | None:
        """The handler, as the interceptors leave it."""


class Call:
    """A call on a stream; to its handler, a grpc.aio.ServicerContext.

    Args:
        stream: what carries it.
        methods: finds its handler.
        on_done: told when nothing of it runs any more.
    """

    def __init__(self, stream: Stream, methods: Methods, on_done: "Callable[[Call], None]") -> None:
        self.stream = stream
        self.client_left = False
        self._methods = methods
        self._on_done = on_done
        self._code: Any = None
        self._details = ""
        self._trailing: Metadata = ()
        self._encoding = "identity"
        self._compress_next = True
        self._ended = False
        self._serializer: Callable[[Any], bytes] | None = None
        self._deserializer: Callable[[bytes], Any] | None = None
        self._callbacks: list[Callable[[Any], None]] = []
        self._room = Wakeup()
        loop = asyncio.get_running_loop()
        timeout = stream.request.timeout
        self._deadline = None if timeout is None else loop.time() + timeout
        self._timer = None if timeout is None else loop.call_later(timeout, self._expire)
        stream.receiver = self
        self.task = loop.create_task(self._run())
        self.task.add_done_callback(self._finished)

    # What its stream tells it

    def lost(self) -> None:
        """The client cancelled, or is gone."""
        self.client_left = True
        self._ended = True
        if self._code is None:
            self._code = grpc.StatusCode.CANCELLED
        self.task.cancel()

    def refuse(self, refusal: StatusError, limit: str) -> None:
        """What the client sent, or does not read, is too much or wrong: the call ends."""
        if limit:
            LIMITS.labels(limit).inc()
        self.end(refusal.code, refusal.details, cut=True)
        self.task.cancel()

    def progressed(self) -> None:
        """Some of what waited left."""
        if self.stream.outbox.bytes <= _WRITE_AHEAD:
            self._room.wake()

    def sent_all(self) -> None:
        """Everything left, the status included."""
        self._room.wake()

    # The servicer context

    async def read(self) -> Any:
        """The next request; EOF after the last."""
        message = await self.stream.inbox.read()
        if message is None:
            return EOF
        return message if self._deserializer is None else self._deserializer(message)

    async def write(self, response: Any) -> None:
        """Send a response; waits while the client is far behind. Raises UsageError once the call
        has ended, and StatusError for a response above the limit."""
        self._check_running()
        message = response if self._serializer is None else self._serializer(response)
        self._send(message)
        while self.stream.outbox.bytes > _WRITE_AHEAD:
            await self._room.wait()

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Send the headers now. Raises UsageError if they were sent, or the call has ended."""
        self._check_running()
        if self.stream.headers_sent:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        self.send_headers(metadata)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> None:
        """End the call with this status, unless it has ended; raises AbortError, always."""
        if not self._ended:
            self._code = code
            self._details = details or self._details
            self._trailing = tuple(trailing_metadata) or self._trailing
            self.end()
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> None:
        """End the call with a status and its details, such as rpc_status makes."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Metadata to send with the status."""
        self._trailing = tuple(metadata)

    def trailing_metadata(self) -> Metadata:
        """What was set."""
        return self._trailing

    def invocation_metadata(self) -> Metadata:
        """The client's metadata."""
        return self.stream.request.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        """The status that a handler which returns ends with."""
        self._code = _status(code)

    def code(self) -> Any:
        """The status set or decided so far; None before."""
        return self._code

    def set_details(self, details: str) -> None:
        """The sentence of that status."""
        self._details = details

    def details(self) -> str:
        """What was set."""
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress responses, if the client takes that; before the first one. Raises RuntimeError
        after the headers."""
        if self.stream.headers_sent:
            raise RuntimeError("Compression has to be set before initial metadata is sent")
        encoding = _COMPRESSION[compression]
        self._encoding = encoding if encoding in self.stream.request.accepts else "identity"

    def disable_next_message_compression(self) -> None:
        """Send the next response as it is."""
        self._compress_next = False

    def peer(self) -> str:
        """The client's address."""
        return self.stream.connection.peer

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """What TLS knows of the client."""
        return self.stream.connection.auth_context()

    def peer_identity_key(self) -> str | None:
        """The key of `auth_context` that identifies the client."""
        known = self.auth_context()
        for key in ("x509_subject_alternative_name", "x509_common_name"):
            if key in known:
                return key
        return None

    def peer_identities(self) -> Sequence[bytes] | None:
        """The values of that key."""
        key = self.peer_identity_key()
        return self.auth_context()[key] if key else None

    def time_remaining(self) -> float | None:
        """Seconds to the client's deadline; None without one."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have `callback(context)` called once the call is over."""
        self._callbacks.append(callback)

    def done(self) -> bool:
        """Whether its status is decided."""
        return self._ended

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._code is grpc.StatusCode.CANCELLED

    # Its way

    def send_headers(self, metadata: Metadata = ()) -> None:
        """Begin the response."""
        encoding = "" if self._encoding == "identity" else self._encoding
        self.stream.send_headers(headers.response(encoding, metadata))

    def end(
        self, code: grpc.StatusCode | None = None, details: str = "", *, cut: bool = False
    ) -> None:
        """End the stream with a status, that of the context if none is given.

        The first one stands, but for one that cuts while the client has yet to take what waits.

        Args:
            cut: drop what the client has not taken yet.
        """
        if self.stream.ended or (self._ended and not cut):
            return
        self._ended = True
        if code is not None:
            self._code, self._details = code, details
        try:
            block = headers.trailers(
                _status(self._code),
                self._details,
                self._trailing,
                alone=not self.stream.headers_sent,
            )
        except (ValueError, TypeError, AttributeError) as error:  # of the handler's metadata
            block = headers.trailers(
                grpc.StatusCode.INTERNAL, str(error), alone=not self.stream.headers_sent
            )
        if cut:
            self.stream.cut(block)
        else:
            self.stream.finish(block, refusing=self._code is not grpc.StatusCode.OK)

    def stop(self) -> None:
        """End it because the server stops."""
        self.stream.refuse(StatusError(grpc.StatusCode.UNAVAILABLE, "The server is stopping."))

    async def _run(self) -> None:
        request = self.stream.request
        try:
            handler = await self._methods.find(Details(request.path, request.metadata))
            if handler is None:
                self.end(
                    grpc.StatusCode.UNIMPLEMENTED,
                    f"There is no method {printable(request.path)} here; list what there is by "
                    "reflection.",
                )
            elif isinstance(handler, MessageStreamMethod):
                await handler.serve(self)
            else:
                await self._serve(handler)
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:
            if not self._ended:  # by the handler itself, then, for all others have said why
                self.end(
                    grpc.StatusCode.CANCELLED, "The call was cancelled by the server.", cut=True
                )
            raise
        except Exception as error:
            if not self._ended:
                _, service, method = ("//" + request.path).rsplit("/", 2)
                self.end(*status_of(error, service, method))
        # It runs until the client has taken the answer: its deadline counts, and so does the place.
        while not self.stream.ended:
            await self._room.wait()

    async def _serve(self, handler: Handler) -> None:
        """Run one of the four kinds of handler."""
        self._deserializer = handler.request_deserializer
        self._serializer = handler.response_serializer
        incoming: Any = self._requests() if handler.request_streaming else await self._request()
        if handler.response_streaming:
            behaviour = handler.stream_stream or handler.unary_stream
            responses = behaviour(incoming, self)
            if inspect.isawaitable(responses):
                await responses
            else:
                async with contextlib.aclosing(responses):
                    async for response in responses:
                        await self.write(response)
            self.end(self._code or grpc.StatusCode.OK, self._details)
            return
        behaviour = handler.stream_unary or handler.unary_unary
        response = await behaviour(incoming, self)
        self._check_running()
        code = self._code or grpc.StatusCode.OK
        if code is grpc.StatusCode.OK:
            self._send(response if self._serializer is None else self._serializer(response))
        self.end(code, self._details)

    async def _request(self) -> Any:
        request = await self.read()
        if request is EOF:
            raise StatusError(
                grpc.StatusCode.INTERNAL, "The call ended without a message; send exactly one."
            )
        return request

    async def _requests(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not EOF:
            yield message

    def _send(self, message: bytes) -> None:
        config = self.stream.connection.config
        limit = config.max_send_bytes
        if len(message) > limit:
            LIMITS.labels("max_send_bytes").inc()
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"A message of {len(message)} bytes is above this listener's limit of {limit} "
                f"bytes for sending; ask for less, or raise {config.send_setting}.",
            )
        if not self.stream.headers_sent:
            self.send_headers()
        if self._encoding != "identity" and self._compress_next:
            self.stream.send_message(compress(message, self._encoding), compressed=True)
        else:
            self.stream.send_message(message)
        self._compress_next = True

    def _check_running(self) -> None:
        if self._ended:
            raise grpc.aio.UsageError("RPC already finished.")

    def _expire(self) -> None:
        timeout = self.stream.request.timeout
        self.stream.refuse(
            StatusError(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"The call's deadline of {timeout:g} seconds has passed.",
            )
        )

    def _finished(self, task: "asyncio.Task[None]") -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not task.cancelled() and not self.client_left:
            self.stream.connection.completed()
        loop = asyncio.get_running_loop()
        for callback in self._callbacks:
            # Each by itself, so that what one raises hurts nobody else.
            loop.call_soon(callback, self)
        self._on_done(self)


def _status(code: Any) -> grpc.StatusCode:
    """Handlers may set a status by its number."""
    if isinstance(code, grpc.StatusCode):
        return code
    for known in grpc.StatusCode:
        if known.value[0] == code:
            return known
    return grpc.StatusCode.UNKNOWN
