"""A native server, clients that behave and clients that do not, and what is left afterwards."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop
from common.tests.comm.native.raw_client import RawClient, opening
from common.tests.comm.native.service import Service
from prometheus_client import REGISTRY

from selvedge_common import comm
from selvedge_common.comm.native.connection import RECEIVED, Connection
from selvedge_common.comm.native.frames import Setting
from selvedge_common.comm.native.server import NativeServer
from selvedge_common.comm.pending import PROCESS

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the services run on; the fuzzer and the tests of splits run on asyncio's."""
    return {"uvloop": uvloop.new_event_loop}


class Target:
    """A native server, its service, and its state as it really is."""

    def __init__(self, server: comm.GRPCServer, service: Service, eventually: Eventually) -> None:
        self.server = server
        self.service = service
        self.eventually = eventually
        self._clients: list[RawClient] = []
        self._before: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for metric in REGISTRY.collect():
            for sample in metric.samples:
                self._before[sample.name, tuple(sorted(sample.labels.items()))] = sample.value

    @property
    def native(self) -> NativeServer:
        """The server below the facade."""
        server = self.server._server
        assert isinstance(server, NativeServer)
        return server

    @property
    def connections(self) -> list[Connection]:
        """What is open."""
        return list(self.native._connections)

    @property
    def running(self) -> int:
        """Calls whose handlers run."""
        return len(self.native._running)

    async def connect(self, **arguments: Any) -> RawClient:
        """A raw client, closed at the end of the test."""
        client = await RawClient.connect(self.server, **arguments)
        self._clients.append(client)
        return client

    async def connection(self) -> Connection:
        """The one connection there is, once it is greeted."""
        await self.eventually(
            lambda: len(self.connections) == 1 and self.connections[0]._incoming.settled
        )
        return self.connections[0]

    def changed(self, name: str, **labels: str) -> float:
        """How much a metric's sample has changed since the test began."""
        now = REGISTRY.get_sample_value(name, labels) or 0.0
        return now - self._before.get((name, tuple(sorted(labels.items()))), 0.0)

    def ended(self, reason: str) -> float:
        """Connections that ended for this reason."""
        return self.changed("grpc_server_connections_ended_total", reason=reason)

    def stopped_at(self, limit: str) -> float:
        """Times that a client was stopped at this limit."""
        return self.changed("grpc_server_limits_passed_total", limit=limit)

    async def serves(self) -> None:
        """Another client is served meanwhile."""
        client = await RawClient.connect(self.server)
        response = await client.response(client.call("/test.Raw/Echo", b"still here?"))
        assert response.messages == [b"still here?"]
        assert response.status == 0
        client.close()

    async def recovers(self) -> None:
        """Another client is served, and nothing is left once all clients have gone."""
        await self.serves()
        self.close_clients()
        await self.eventually(lambda: not self.connections and not self.running)
        assert not self.native._greeting
        assert not self.native._strangers
        assert RECEIVED.bytes == 0
        assert not RECEIVED.holders
        assert PROCESS.pending == 0
        assert not PROCESS.streams
        assert REGISTRY.get_sample_value("grpc_server_receiving_bytes") == 0
        assert self.changed("grpc_server_connections") == 0

    def close_clients(self) -> None:
        """All raw clients leave at once."""
        for client in self._clients:
            client.close()


@pytest.fixture
def transport() -> str:
    """All these tests are of one transport."""
    return "native"


@pytest.fixture
async def attack(
    serve: Callable[..., Awaitable[comm.GRPCServer]], eventually: Eventually
) -> AsyncIterator[Callable[..., Awaitable[Target]]]:
    """Start a server with small limits, for a test to attack."""
    targets: list[Target] = []

    async def start(*, http2: dict[str, Any] | None = None, **config: Any) -> Target:
        service = Service()
        server = await serve(
            service.add_to, comm.ServerConfig(http2=comm.Http2Config(**http2 or {}), **config)
        )
        targets.append(Target(server, service, eventually))
        return targets[-1]

    yield start
    for target in targets:
        target.close_clients()


@pytest.fixture
async def target(attack: Callable[..., Awaitable[Target]]) -> Target:
    """A server with the usual limits."""
    return await attack()


WINDOW_OF_NOTHING = opening({Setting.INITIAL_WINDOW_SIZE: 0})


def client_context(root: bytes, *protocols: str) -> ssl.SSLContext:
    """TLS of a client that trusts a root and asks for these protocols."""
    context = ssl.create_default_context(cadata=root.decode())
    context.set_alpn_protocols(list(protocols))
    return context
