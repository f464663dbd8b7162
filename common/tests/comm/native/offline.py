"""A native server without a network: what a client sends is handed to its connections."""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from common.tests.comm.native.service import Service

from selvedge_common import comm
from selvedge_common.comm.native.connection import Connection
from selvedge_common.comm.native.server import NativeServer

T = TypeVar("T")

_NOWHERE = socket.socket()


class FakeTransport:
    """Takes what a connection writes."""

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._closing = False

    @property
    def written(self) -> bytes:
        """All of it so far."""
        return b"".join(self._written)

    def get_extra_info(self, name: str) -> Any:
        return {"peername": ("127.0.0.1", 1), "socket": _NOWHERE}.get(name)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int, low: int) -> None: ...

    def write(self, data: bytes) -> None:
        assert not self._closing, "It is written to after its end."
        self._written.append(bytes(data))

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        self._closing = True

    def close(self) -> None:
        self._closing = True

    abort = close

    def pause_reading(self) -> None:
        """It reads nothing anyway."""

    resume_reading = pause_reading

    def is_closing(self) -> bool:
        return self._closing


class Offline:
    """A server and its service, on a loop of their own.

    Args:
        config: its limits.
    """

    def __init__(self, config: comm.ServerConfig) -> None:
        self.config = config
        self.loop = asyncio.new_event_loop()
        self.run(self._prepare())

    async def _prepare(self) -> None:
        self.server = comm.GRPCServer("127.0.0.1:0", self.config)
        self.service = Service()
        self.service.go_on.set()
        self.service.add_to(self.server)
        self.native = cast("NativeServer", self.server._server)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run this on the loop."""
        return self.loop.run_until_complete(coroutine)

    def connect(self) -> tuple[Connection, FakeTransport]:
        """A new connection; from within `run`."""
        transport = FakeTransport()
        connection = Connection(self.native, self.config, secure=False)
        connection.connection_made(cast("asyncio.Transport", transport))
        return connection, transport

    def close(self) -> None:
        """Free the address that it holds."""
        self.run(self.server.stop(0))
        self.loop.close()
