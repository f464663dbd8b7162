"""Every call but the message streams passes here: metrics, and errors turned into statuses."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc.aio import EOF  # type: ignore[attr-defined]  # missing in the stubs

from selvedge_common import logs
from selvedge_common.comm.errors import StatusError
from selvedge_common.comm.metrics import Call, Method, unknown_method

log = logs.get_logger("comm")

_DEADLINE_SLACK = 0.1  # seconds
Handler = Any  # grpc.RpcMethodHandler; its stubs are generic, the class is not
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


def status_of(error: Exception, service: str, method: str) -> tuple[grpc.StatusCode, str]:
    """The status a client gets for a handler's exception.

    What a StatusError says is meant for the client. Anything else is a fault of ours: it is
    logged in full, and the client gets an id to ask for, never its text.
    """
    if isinstance(error, StatusError):
        return error.code, error.details
    fault = secrets.token_hex(4)
    log.error("handler failed", service=service, method=method, id=fault, exc_info=error)
    return (
        grpc.StatusCode.INTERNAL,
        f"An internal error ended {method}; the server's log has it under id {fault}.",
    )


def code_of_cancelled(context: Any, timeout: float | None) -> grpc.StatusCode:
    """What a call ended from the client's side counts as: its deadline, or its wish.

    `timeout` is the time it had when it began, in seconds. Timeouts travel rounded up by as much
    as a hundredth, so the client's own deadline passes first and it cancels somewhat early.
    """
    if timeout is None:
        return grpc.StatusCode.CANCELLED
    late = context.time_remaining() < _DEADLINE_SLACK + timeout / 100
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


class Calls:
    """The calls under way in a server's handlers."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self) -> asyncio.Task[Any]:
        """Hold the current task among them, until `end`."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        return task

    def end(self, task: asyncio.Task[Any]) -> None:
        """Hold it no longer."""
        self._tasks.discard(task)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the current task among them as long as the block lasts."""
        task = self.begin()
        try:
            yield
        finally:
            self.end(task)

    async def ended(self, seconds: float) -> None:
        """Wait until none is left, but no longer than that."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not at run time
    """Observes all calls but those of message streams, which observe themselves."""

    def __init__(
        self, message_streams: set[str], calls: Calls, elsewhere: Mapping[str, str]
    ) -> None:
        self._message_streams = message_streams
        self._calls = calls
        self._elsewhere = elsewhere
        self._observed: dict[str, Handler] = {}

    async def intercept_service(  # type: ignore[override]  # None is allowed
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler | None:
        path = details.method
        if (known := self._observed.get(path)) is not None:
            return known
        handler = await continuation(details)
        if handler is None:
            unknown_method()
            return self._show_the_way(path)
        if path not in self._message_streams:
            handler = self._observed[path] = _observe(path, handler, self._calls)
        return handler

    def _show_the_way(self, path: str) -> Handler | None:
        """Refuses a call of what is served elsewhere, with a sentence that says where."""
        _, service, _ = ("//" + path).rsplit("/", 2)
        where = self._elsewhere.get(service)
        if where is None:
            return None

        async def refuse(_: object, context: Any) -> None:
            log.warning("called at the wrong address", method=path, peer=context.peer())
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED, f"{service} is not served here: dial {where}."
            )

        return grpc.stream_stream_rpc_method_handler(refuse)


def _observe(path: str, handler: Any, calls: Calls) -> Handler:
    """The same method with its calls observed. Handlers are coroutines or async generators."""
    kind = {
        (False, False): "unary",
        (False, True): "server_stream",
        (True, False): "client_stream",
        (True, True): "bidi_stream",
    }[handler.request_streaming, handler.response_streaming]
    method = Method(path, kind)
    parse = _parser(method, handler.request_deserializer)
    # Requests are parsed here: gRPC answers one it cannot parse with UNKNOWN and logs a traceback.
    serializers = (None, handler.response_serializer)

    def incoming(request: Any, call: Call) -> Any:
        if handler.request_streaming:
            return _parsed(request, parse, call)
        call.received()
        return parse(request)

    if not handler.response_streaming:
        behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def respond(request: Any, context: Any) -> Any:
            async with _Observed(method, context, calls) as call:
                response = await behaviour(incoming(request, call), context)
                call.sent()
                return response

        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(respond, *serializers)
        return grpc.unary_unary_rpc_method_handler(respond, *serializers)

    behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream

    async def stream(request: Any, context: Any) -> None:
        async with _Observed(method, context, calls) as call:
            observed = _CountingContext(context, parse, call)
            responses = behaviour(incoming(request, call), observed)
            if isinstance(responses, Awaitable):
                await responses
                return
            async with contextlib.aclosing(responses):
                async for response in responses:
                    await observed.write(response)

    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(stream, *serializers)
    return grpc.unary_stream_rpc_method_handler(stream, *serializers)


def _parser(method: Method, deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def parse(request: bytes) -> Any:
        if deserialize is None:
            return request
        try:
            return deserialize(request)
        except DecodeError as error:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"The {len(request)} bytes sent to {method.name} are not the message that it takes"
                f" ({error}): send that of {method.service}'s definition.",
            ) from error

    return parse


class _CountingContext:
    """A servicer context that parses what is read through it, and counts reads and writes."""

    def __init__(self, context: Any, parse: Callable[[bytes], Any], call: Call) -> None:
        self._context = context
        self._parse = parse
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        message = await self._context.read()
        if message is EOF:
            return message
        self._call.received()
        return self._parse(message)

    async def write(self, message: Any) -> None:
        await self._context.write(message)
        self._call.sent()


async def _parsed(
    requests: AsyncIterator[bytes], parse: Callable[[bytes], Any], call: Call
) -> AsyncIterator[Any]:
    async for request in requests:
        call.received()
        yield parse(request)


class _Observed:
    """Counts one call, and turns what its handler raises into its status.

    A class and no generator: it is around every unary call, and this way costs a third.
    """

    __slots__ = ("_call", "_calls", "_context", "_method", "_task", "_timeout")

    def __init__(self, method: Method, context: Any, calls: Calls) -> None:
        self._method = method
        self._context = context
        self._calls = calls

    async def __aenter__(self) -> Call:
        self._timeout = self._context.time_remaining()
        self._task = self._calls.begin()
        self._call = self._method.call()
        return self._call

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.end(self._task)
        code = grpc.StatusCode.OK
        try:
            if error is None:
                code = self._context.code() or code
            elif isinstance(error, grpc.aio.AbortError):
                code = self._context.code()
            elif isinstance(error, asyncio.CancelledError | grpc.aio.BaseError):
                # The client cancelled or is gone, or the server stopped; grpcio may say so by
                # failing a read or a write.
                code = code_of_cancelled(self._context, self._timeout)
            elif isinstance(error, Exception):
                code, details = status_of(error, self._method.service, self._method.name)
                await self._context.abort(code, details)
        finally:
            self._call.finished(code)
