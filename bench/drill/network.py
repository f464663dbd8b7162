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

    Args:
        target: the address, as host:port.

    Attributes:
        address: where it listens.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener: asyncio.Server
        self._writers = set[asyncio.StreamWriter]()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut = False
        self.address = ""

    async def __aenter__(self) -> Wire:
        self._listener = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        host, port = self._listener.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self.reset()

    def cut(self) -> None:
        """Reset all connections, and those that come, until it is mended."""
        self._cut = True
        self.reset()

    def silence(self) -> None:
        """Forward nothing, without a word, until it is mended: whoever connects waits."""
        self._flowing.clear()

    def mend(self) -> None:
        """Forward again."""
        self._cut = False
        self._flowing.set()

    def reset(self) -> None:
        """Reset all connections."""
        for writer in tuple(self._writers):
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._cut:
                return
            await self._flowing.wait()
            there, back = await asyncio.open_connection(*self._target)
            self._writers.add(back)
            try:
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(self._pump(reader, back))
                    pumps.create_task(self._pump(there, writer))
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except (OSError, ExceptionGroup):
            pass  # one of the ends is gone, and the other is told below
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.write_eof()
