"""A TCP proxy between a client and the hub that becomes as bad a network as a test wants."""

import asyncio
import socket
from enum import Enum, auto

# So that the kernel holds little for whoever does not read.
BUFFER_BYTES = 16 * 1024


class Network(Enum):
    """What the way between client and hub is like."""

    FINE = auto()
    # One byte a second comes through to the client.
    TRICKLE = auto()
    # Nothing comes through any more, and nobody is told: as after a cable was pulled.
    DEAD = auto()


class Proxy:
    """Forwards connections to an address; `network` may change at any time."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self.network = Network.FINE
        self._upstream = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._sockets = [self._listener]
        self._tasks = {asyncio.create_task(self._accept())}

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in self._sockets:
            each.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            hub = socket.socket()
            hub.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            for each in (client, hub):
                each.setblocking(False)
                self._sockets.append(each)
            await loop.sock_connect(hub, self._upstream)
            self._tasks.add(asyncio.create_task(self._forward(hub, client, slow=True)))
            self._tasks.add(asyncio.create_task(self._forward(client, hub, slow=False)))

    async def _forward(self, source: socket.socket, sink: socket.socket, *, slow: bool) -> None:
        loop = asyncio.get_running_loop()
        while True:
            trickles = slow and self.network is Network.TRICKLE
            data = await loop.sock_recv(source, 1 if trickles else BUFFER_BYTES)
            if self.network is Network.DEAD:
                await asyncio.Event().wait()
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(sink, data)
            if trickles:
                await asyncio.sleep(1)
