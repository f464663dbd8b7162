"""A server and channels for a test, closed at its end."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from selvedge_common import comm

Prepare = Callable[[comm.GRPCServer], None]


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait until a condition holds, ten seconds at most."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture(params=comm.TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Any:
    """What carries the servers of a test; each test that serves runs over both."""
    return request.param


@pytest.fixture
async def serve(transport: Any) -> AsyncIterator[Callable[..., Awaitable[comm.GRPCServer]]]:
    """Start a server that `prepare` adds services to."""
    servers: list[comm.GRPCServer] = []

    async def start(prepare: Prepare, config: comm.ServerConfig | None = None) -> comm.GRPCServer:
        config = dataclasses.replace(config or comm.ServerConfig(), transport=transport)
        server = comm.GRPCServer("127.0.0.1:0", config)
        servers.append(server)
        prepare(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.stop(0)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Any]]:
    """Open a channel of its own connection, closed at the end of the test."""
    channels: list[Any] = []

    def open_channel(
        server: comm.GRPCServer, *, root_cas: bytes | None = None, **arguments: Any
    ) -> Any:
        # Otherwise gRPC lets channels of equal credentials share one connection.
        options = [("grpc.use_local_subchannel_pool", 1), *arguments.pop("options", ())]
        channel = comm.channel(server.address, root_cas=root_cas, options=options, **arguments)
        channels.append(channel)
        return channel

    yield open_channel
    for channel in channels:
        await channel.close()


@pytest.fixture
def count() -> Callable[..., float]:
    """The value of a metric's sample now; 0 if there is none."""

    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    return value
