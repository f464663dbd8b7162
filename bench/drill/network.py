"""The ways between hubs, sources and consumers: TCP through a process that can be told to fail."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

_CHUNK = 64 * 1024
# A socket that is closed like this sends a reset, and drops what it still has.
_RESET = struct.pack("ii", 1, 0)


class Wire:
    """Forwards connections to an address, as long as it is told to.

    Each direction by itself, as between two machines: what one end has sent still reaches the
    other when that does not get through any more.

    Args:
        target: the address, as host:port.

    Attributes:
        address: where it listens.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener: socket.socket
        self._accepting: asyncio.Task[None]
        self._connections = dict[asyncio.Task[None], list[socket.socket]]()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut = self._trickling = False
        self.address = ""

    async def __aenter__(self) -> Wire:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        host, port = self._listener.getsockname()
        self.address = f"{host}:{port}"
        self._accepting = asyncio.create_task(self._accept())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._accepting.cancel()
        self.reset()
        await asyncio.gather(self._accepting, *self._connections, return_exceptions=True)
        self._listener.close()

    def cut(self) -> None:
        """Reset all connections, and those that come, until it is mended."""
        self._cut = True
        self.reset()

    def silence(self) -> None:
        """Forward nothing, without a word, until it is mended: whoever connects waits."""
        self._flowing.clear()

    def trickle(self) -> None:
        """Forward a byte a second each way, until it is mended."""
        self._trickling = True

    def mend(self) -> None:
        """Forward again."""
        self._cut = self._trickling = False
        self._flowing.set()

    def reset(self) -> None:
        """Reset all connections."""
        for connection, ends in self._connections.items():
            for end in ends:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.cancel()

    async def _accept(self) -> None:
        while True:
            client, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            if self._cut:
                client.close()
                continue
            ends = [client]
            connection = asyncio.create_task(self._connect(ends))
            self._connections[connection] = ends
            connection.add_done_callback(self._close)

    def _close(self, connection: asyncio.Task[None]) -> None:
        """Also of a task that was cancelled before it began."""
        for end in self._connections.pop(connection):
            end.close()

    async def _connect(self, ends: list[socket.socket]) -> None:
        await self._flowing.wait()
        target = socket.socket()
        target.setblocking(False)
        ends.append(target)
        with suppress(OSError):  # the client is told by the end of its connection
            await asyncio.get_running_loop().sock_connect(target, self._target)
            await asyncio.gather(self._forward(*ends), self._forward(*reversed(ends)))

    async def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # an end is gone, which the other direction finds out by itself
            while data := await loop.sock_recv(source, _CHUNK):
                while data:
                    await self._flowing.wait()
                    size = 1 if self._trickling else len(data)
                    await loop.sock_sendall(sink, data[:size])
                    data = data[size:]
                    if self._trickling:
                        await asyncio.sleep(1)
            sink.shutdown(socket.SHUT_WR)
