"""The native server: accepts connections, finds methods, and stops in order."""

import asyncio
import contextlib
import errno
import functools
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from selvedge_common import logs
from selvedge_common.comm import listener as listening
from selvedge_common.comm.calls import Calls
from selvedge_common.comm.credentials import ServerCredentials
from selvedge_common.comm.errors import CertificateError, StatusError
from selvedge_common.comm.message_stream import MessageStreamHandler
from selvedge_common.comm.metrics import CONNECTIONS, HANDSHAKE_FAILURES, LIMITS
from selvedge_common.comm.native import headers, heap, message_stream, tls
from selvedge_common.comm.native.call import Call, Details, Handler
from selvedge_common.comm.native.connection import Connection
from selvedge_common.comm.native.frames import ConnectionFault, ErrorCode
from selvedge_common.comm.native.stream import Stream
from selvedge_common.comm.native.tally import Tally
from selvedge_common.comm.settings import ServerConfig

log = logs.get_logger("comm")

_BACKLOG = 1024
_ACCEPTS_A_TURN = 64  # so that a flood of connections leaves time for those that are there
_PAUSE = 0.5  # seconds without accepting when the process has no file descriptors left
_HANDSHAKES = 256  # of one TLS context
_TELL_EVERY = 5.0  # seconds between two lines on failing handshakes
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_FAREWELL = 1.0  # seconds that the last answers may take to leave, whatever the grace
_CLEAN_UP = 5.0  # seconds that cancelled handlers may take to end


SERVERS: "dict[NativeServer, None]" = {}
"""The servers of this process that serve, in the order in which they began."""


class NativeServer:
    """A gRPC server on a listening socket; the face of grpc.aio.Server as far as ours needs it.

    Args:
        listener: a bound TCP socket.
        config: TLS, keepalive and bounds.
        credentials: the TLS material; None for plaintext.
        interceptors: asked for the handler of each call, in this order.
        calls: keeps the tasks of message streams.
    """

    def __init__(
        self,
        listener: socket.socket,
        config: ServerConfig,
        credentials: ServerCredentials | None,
        interceptors: "Sequence[grpc.aio.ServerInterceptor[Any, Any]]",
        calls: Calls,
    ) -> None:
        self._listener = listener
        self._config = config
        self._credentials = credentials
        self._context = tls.context(credentials) if credentials else None
        if credentials is not None:
            credentials.on_change(self._renew)
        self._interceptors = tuple(interceptors)
        self._calls = calls
        self._methods: dict[str, Handler] = {}
        self._generic: list[Any] = []
        self._loop = asyncio.get_running_loop()
        # Connections in their handshake.
        self._greeting: dict[asyncio.Task[None], socket.socket] = {}
        # Who has not begun to speak HTTP/2 yet, and how to end them; the oldest first.
        self._strangers: dict[object, Callable[[], object]] = {}
        self.tally = Tally()
        self._connections: dict[Connection, None] = {}  # the oldest first
        self._running: set[Call] = set()
        # A part of the places is theirs who have shown nothing yet, and no more than that.
        self._most_strangers = max(1, config.http2.max_connections // 4)
        self._shaken = 0  # TLS handshakes that began
        self._gone = 0  # connections that have ended
        self._alone = asyncio.Event()  # there is no connection
        self._alone.set()
        self._quiet = asyncio.Event()  # no call runs
        self._stopping = False
        self._stopped = asyncio.Event()
        self._told: dict[str, float] = {}

    @property
    def address(self) -> str:
        """Where it listens."""
        return listening.name(self._listener)

    @property
    def connections(self) -> Iterable[Connection]:
        """Those that are open, the oldest first."""
        return self._connections

    # The face of grpc.aio.Server

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Take handlers as grpc.aio.Server does."""
        self._generic += handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take handlers as grpc.aio.Server does."""
        for name, handler in handlers.items():
            self._methods[f"/{service}/{name}"] = handler

    def add_message_stream(self, path: str, handler: MessageStreamHandler) -> None:
        """Serve a method by the message-stream face."""
        self._methods[path] = message_stream.method_handler(
            path, handler, self._config, self._calls
        )

    async def start(self) -> None:
        """Begin to accept connections."""
        self._listener.setblocking(False)
        # Nobody shares the address; but connections that linger after stop, which take this over
        # from their listener, must not keep it.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.listen(_BACKLOG)
        self._loop.add_reader(self._listener, self._accept)
        SERVERS[self] = None

    async def stop(self, grace: float) -> None:
        """Take no new connections and calls, and end those that still run after `grace` seconds."""
        end = self._loop.time() + grace
        self._stopping = True
        SERVERS.pop(self, None)
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
        await self._stop_greeting()
        for connection in self._connections:
            connection.go_away()
        if self._running:
            self._quiet.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self._quiet.wait()
        for call in list(self._running):
            call.stop()
        for connection in list(self._connections):
            connection.close("server")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(max(end, self._loop.time() + _FAREWELL)):
                await self._alone.wait()
        for connection in list(self._connections):
            connection.abort("server")
        await self._calls.ended(_CLEAN_UP)  # handlers that were cancelled
        self._stopped.set()

    async def _stop_greeting(self) -> None:
        greeting = dict(self._greeting)
        for task in greeting:
            task.cancel()
        await asyncio.gather(*greeting, return_exceptions=True)
        for client in greeting.values():
            client.close()  # also of a task that had not begun, and so could not

    async def wait_for_termination(self) -> None:
        """Wait until the server has stopped."""
        await self._stopped.wait()

    # What connections ask of it

    def open(self, stream: Stream) -> None:
        """Serve a new stream, or say why not."""
        request = stream.request
        limit = self._config.http2.max_header_list_bytes
        refusal = stream.connection.refusal
        if refusal is not None:
            _refuse(stream, refusal.code, refusal.details)
        elif not request.is_grpc:
            stream.answer_plainly(
                415,
                "This is a gRPC server: it takes POST requests whose content-type is "
                "application/grpc. Use a gRPC client, such as grpcurl.\n",
            )
        elif request.size > limit:
            LIMITS.labels("max_header_list_bytes").inc()
            _refuse(
                stream,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"The call's headers take {request.size} bytes, above this listener's limit of "
                f"{limit}; send less metadata, or raise the limit.",
            )
        elif request.encoding not in headers.ENCODINGS:
            _refuse(
                stream,
                grpc.StatusCode.UNIMPLEMENTED,
                f"Messages compressed by {request.encoding!r} cannot be read here; use one of "
                f"{', '.join(headers.ENCODINGS)}.",
            )
        else:
            connection = stream.connection
            connection.running += 1
            connection.tally.begin()
            self.tally.begin()
            self._running.add(Call(stream, self, self._done))

    def arrived(self, connection: Connection) -> None:
        """A connection is made."""
        self._connections[connection] = None
        self._strangers[connection] = functools.partial(connection.abort, "max_connections")
        self._alone.clear()
        CONNECTIONS.inc()
        if self._credentials and not self._credentials.trusts(connection.identity.chain):
            # Not ended yet: clients show a status, but hardly what is said before their first call.
            connection.refusal = _UNTRUSTED
            self._tell_untrusted(connection)
            self._loop.call_later(
                self._config.handshake_timeout, connection.fail, tls.NO_LONGER_TRUSTED
            )

    def settled(self, connection: Connection) -> None:
        """A client has begun to speak: for one too many, the oldest that carries no call makes
        room. Strangers, who have shown nothing yet, push nobody out."""
        self._strangers.pop(connection, None)
        known = len(self._connections) + len(self._greeting) - len(self._strangers)
        if known + self._most_strangers <= self._config.http2.max_connections:
            return
        LIMITS.labels("max_connections").inc()
        if not self._end_oldest_idle(but=connection):
            connection.fail(_NO_ROOM)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._strangers.pop(connection, None)
        self._connections.pop(connection, None)
        CONNECTIONS.dec()
        self._gone += 1
        if connection.secure and self._gone % heap.EVERY == 0:
            heap.trim()
        if not self._connections:
            self._alone.set()

    async def find(self, details: Details) -> Handler | None:
        """The handler of a call, as the interceptors leave it."""
        return await self._intercept(0, details)

    async def _intercept(self, number: int, details: Details) -> Handler | None:
        if number == len(self._interceptors):
            return self._lookup(details)

        async def proceed(details: Any) -> Handler | None:
            return await self._intercept(number + 1, details)

        return await self._interceptors[number].intercept_service(proceed, details)  # type: ignore[arg-type]

    def _lookup(self, details: Any) -> Handler | None:
        handler = self._methods.get(details.method)
        if handler is not None:
            return handler
        for generic in self._generic:
            handler = generic.service(details)
            if handler is not None:
                return handler
        return None

    def _done(self, call: Call) -> None:
        self._running.discard(call)
        connection, succeeded = call.stream.connection, call.code() is grpc.StatusCode.OK
        connection.running -= 1
        connection.tally.end(succeeded)
        self.tally.end(succeeded)
        if not self._running:
            self._quiet.set()

    # Connections

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                client, name = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                self._tell("no_files", f"No connection can be accepted: {error.strerror}.", "")
                LIMITS.labels("open_files").inc()
                self._end_oldest_stranger() or self._end_oldest_idle()
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_PAUSE, self._accept_again)
                return
            if len(self._strangers) >= self._most_strangers:
                LIMITS.labels("max_connections").inc()
                self._end_oldest_stranger()
            client.setblocking(False)
            # Answers are small, and each is wanted now.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._greet(client, tls.address(name)))
            self._greeting[task] = client
            self._strangers[task] = task.cancel
            task.add_done_callback(self._greeted)

    def _greeted(self, task: "asyncio.Task[None]") -> None:
        del self._greeting[task]
        self._strangers.pop(task, None)

    def _end_oldest_stranger(self) -> bool:
        """Tells whether there was one."""
        if not self._strangers:
            return False
        oldest = next(iter(self._strangers))
        self._strangers.pop(oldest)()
        return True

    def _end_oldest_idle(self, but: Connection | None = None) -> bool:
        """End the oldest connection that carries no call; tells whether there was one."""
        idle = next(
            (each for each in self._connections if each.settled and each.idle and each is not but),
            None,
        )
        if idle is not None:
            # Without a farewell, which might take its time; a gRPC client dials again by itself.
            idle.abort("max_connections")
        return idle is not None

    def _accept_again(self) -> None:
        if not self._stopping:
            self._loop.add_reader(self._listener, self._accept)

    async def _greet(self, client: socket.socket, peer: str) -> None:
        """Shake hands with a client, by the certificates of this moment."""
        context = self._context_for_one_more()
        secure = context is not None
        try:
            await self._loop.connect_accepted_socket(
                lambda: Connection(self, self._config, secure=secure),
                client,
                ssl=context,
                ssl_handshake_timeout=self._config.handshake_timeout if secure else None,
            )
        except Exception as error:  # of TLS, and of certificates that cannot be read
            reason, why = tls.handshake_failure(error)
            HANDSHAKE_FAILURES.labels(reason).inc()
            self._tell(reason, why, peer)

    def _context_for_one_more(self) -> ssl.SSLContext | None:
        """A context serves some handshakes and no more: OpenSSL remembers TLS 1.2 sessions, chains
        and all, while it lives."""
        self._shaken += 1
        if self._credentials is not None and self._shaken % _HANDSHAKES == 0:
            with contextlib.suppress(CertificateError):  # no file left: the one there is goes on
                self._context = tls.context(self._credentials)
        return self._context

    def _tell(self, reason: str, why: str, peer: str) -> None:
        """Log trouble with connections, but not each time: anybody can cause it."""
        now = self._loop.time()
        if now - self._told.get(reason, float("-inf")) >= _TELL_EVERY:
            self._told[reason] = now
            # Whoever only asks whether the port is open, or for the certificate, leaves like this.
            tell = log.debug if reason == "lost" else log.warning
            tell("connection refused", reason=reason, why=why, peer=peer)

    def _dismiss(self, connection: Connection) -> None:
        """End the connection of a client that is trusted no more, and tell its calls why."""
        self._tell_untrusted(connection)
        for stream in list(connection.streams.values()):
            stream.refuse(_UNTRUSTED)
        connection.fail(tls.NO_LONGER_TRUSTED)

    def _tell_untrusted(self, connection: Connection) -> None:
        certificate = connection.identity.describe()
        self._tell("not_trusted", f"The certificate of {certificate}.", connection.peer)

    def _renew(self) -> None:
        """The certificates or the client roots have changed."""
        assert self._credentials is not None
        self._context = tls.context(self._credentials)
        for connection in list(self._connections):
            if not self._credentials.trusts(connection.identity.chain):
                self._dismiss(connection)


_NO_ROOM = ConnectionFault(
    ErrorCode.ENHANCE_YOUR_CALM,
    "Too many connections are open and carry calls; raise transport.maxConnections.",
    reason="max_connections",
)
_UNTRUSTED = StatusError(grpc.StatusCode.UNAUTHENTICATED, tls.NO_LONGER_TRUSTED.sentence)


def _refuse(stream: Stream, code: grpc.StatusCode, details: str) -> None:
    stream.finish(headers.trailers(code, details, alone=True), refusing=True)
