"""The connections of the operations endpoint: so many at once, and none that only takes a place.

aiohttp bounds neither their number nor the time of a TLS handshake. Anyone may open one, so beyond
the bound the one that has been open longest makes room: probes and scrapes take milliseconds, and
whoever is cut off connects again.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

from prometheus_client import Counter

from selvedge_common import logs

log = logs.get_logger("operations")
ENDED = Counter(
    "operations_connections_ended_total",
    "Connections to the operations endpoint ended because there were too many.",
)
_HANDSHAKE = 10.0  # seconds
_BACKLOG = 128
_PAUSE = 1.0  # seconds, where the process has no file descriptor left
_LOG_EVERY = 60.0  # seconds between two warnings of the same


class Connections:
    """Accepts connections until it is stopped.

    Args:
        make: the protocol of a new connection.
        tls: the server's side of TLS, or None.
        most: how many there may be at once, those that shake hands included.
    """

    def __init__(
        self, make: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None, most: int
    ) -> None:
        self._make = make
        self._tls = tls
        self._most = most
        self._open: dict[socket.socket, asyncio.Task[None]] = {}  # the oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._warned = float("-inf")

    def start(self, listener: socket.socket) -> None:
        """Accept from `listener`, which is closed by `stop`."""
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        self._accepting = asyncio.create_task(self._accept(listener))
        # Not left to the task, which may be cancelled before it has begun.
        self._accepting.add_done_callback(lambda _: listener.close())

    async def stop_accepting(self) -> None:
        """Take no more connections; those that are open go on."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))

    async def stop(self) -> None:
        """End all that are open."""
        for connection in list(self._open):
            self._end(connection)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("no connection can be accepted", reason=str(error))
                await asyncio.sleep(_PAUSE)
                continue
            if len(self._open) >= self._most:
                self._make_room()
            task = asyncio.create_task(self._serve(connection))
            self._open[connection] = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _make_room(self) -> None:
        ENDED.inc()
        now = asyncio.get_running_loop().time()
        if now - self._warned >= _LOG_EVERY:
            self._warned = now
            log.warning("too many connections, so the oldest is ended", limit=self._most)
        self._end(next(iter(self._open)))

    def _end(self, connection: socket.socket) -> None:
        self._open.pop(connection, None)
        # Whatever is done with the connection now, a handshake or a slow write, fails by this.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        protocol = _Watched(self._make())
        try:
            await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE if self._tls is not None else None,
            )
            await protocol.ended.wait()
        except OSError as error:  # of the handshake; the client may be anyone
            log.debug("connection ended", reason=str(error))
        finally:
            self._open.pop(connection, None)


class _Watched(asyncio.Protocol):
    """A connection's protocol, and an event for its end."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.ended = asyncio.Event()
        self._protocol = protocol
        self.data_received = protocol.data_received  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]
        self.connection_made = protocol.connection_made  # type: ignore[method-assign]

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()
        self._protocol.connection_lost(error)
