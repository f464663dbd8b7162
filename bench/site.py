"""Where the services are measured: a running house, the yardsticks and the chaincode, each in
processes of their own, and a client in this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import golang, load_client
from bench.client import NAME, Client
from bench.effort import Effort
from bench.house import House, running
from bench.process import PATIENCE, Program, cpu_seconds, module, program, settle

ANSWER = "/bench.Raw/Answer"
STREAM = "/bench.Raw/Stream"
EVENTS = "/bench.Raw/Events"
_POLL = 0.05


@dataclass(frozen=True)
class Yardstick:
    """A server that only answers.

    Attributes:
        pid: its process.
        address: where it listens.
    """

    pid: int
    address: str


@dataclass(frozen=True)
class Site:
    """What the measurements need.

    Attributes:
        effort: how much is done.
        house: the services.
        raw: nothing but grpc.aio.
        echo: our native transport with nothing behind it.
        client: a user.
        load: the load client's program.
        chaincode: the chaincode's program.
        environment: what has it dial the peer.
    """

    effort: Effort
    house: House
    raw: Yardstick
    echo: Yardstick
    client: Client
    load: Path
    chaincode: Path
    environment: dict[str, str]

    @property
    def yardsticks(self) -> dict[str, Yardstick]:
        """Both, by the names of their columns."""
        return {"raw": self.raw, "echo": self.echo}

    @property
    def user_tls(self) -> Path:
        """The folder of the certificate that clients show."""
        return self.house.home / "crypto" / "users" / "user1" / "tls"

    def pid(self, service: str) -> int:
        """The process of a service now."""
        return self.house.pids()[service]

    def load_client(
        self,
        mode: str,
        address: str,
        method: str,
        *,
        connections: int = 1,
        streams: int = 1,
        size: int = 0,
        answer: int = 0,
        window: int = 1,
        request: bytes = b"",
        count: int = 1,
        secure: bool = True,
    ) -> load_client.Running:
        """A load client that is the user of this site."""
        return load_client.load_client(
            mode,
            address,
            built=self.load,
            tls=self.user_tls if secure else None,
            connections=connections,
            streams=streams,
            size=size,
            method=method,
            answer=answer,
            window=window,
            request=request,
            count=count,
        )

    async def set_size(self, yardstick: Yardstick, size: int) -> None:
        """Have a yardstick say so many bytes from now on."""
        channel = await self.client.channel(yardstick.address)
        await channel.unary_unary("/bench.Raw/Size")(str(size).encode())

    async def raw_stream(self, size: int) -> Any:
        """A stream of the raw server, which answers each message with so many bytes."""
        await self.set_size(self.raw, size)
        channel = await self.client.channel(self.raw.address)
        return channel.stream_stream(STREAM)()

    async def idle(self) -> None:
        """Return once nothing is left of what was done before."""
        await settle([*self.house.pids().values(), self.raw.pid, self.echo.pid])


class Usage:
    """Processor time of a server's process, from when this is made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = cpu_seconds(pid)

    def each(self, count: int) -> float:
        """Microseconds until now, for each of so many calls or events."""
        return (cpu_seconds(self._pid) - self._before) / count * 1e6


@asynccontextmanager
async def yardstick(kind: str, house: House) -> AsyncIterator[Yardstick]:
    """A yardstick, with the certificate that the event hub of a house has or had."""
    async with module("raw_server", kind, house.home / "event-hub") as server:
        yield Yardstick(server.pid, await server.line())


def running_chaincode(
    built: Path, address: str, environment: dict[str, str]
) -> AbstractAsyncContextManager[Program]:
    """The chaincode; it dials at once, and is there once the peer knows it."""
    return program(built, "-peer.address", address, environment=environment)


@asynccontextmanager
async def site(effort: Effort, folder: Path) -> AsyncIterator[Site]:
    """Everything started, until the block ends.

    Raises:
        NoGo: there is no Go to build the chaincode and the load client with.
        BenchError: the services do not do what they should.
    """
    built, load = await golang.build("chaincode"), await golang.build("load")
    async with running(folder) as house:
        environment = await house.issue_chaincode(NAME)
        async with (
            running_chaincode(built, house.addresses.chaincode, environment),
            yardstick("raw", house) as raw,
            yardstick("native", house) as echo,
            running_chaincode(built, raw.address, environment),
            running_chaincode(built, echo.address, environment),
            Client(house) as client,
        ):
            async with asyncio.timeout(PATIENCE):
                while not await client.endorses():  # noqa: ASYNC110 - it is another process's
                    await asyncio.sleep(_POLL)
            yield Site(effort, house, raw, echo, client, load, built, environment)


def puts(count: int, *, prefix: str, event: int = 0) -> Sequence[Sequence[object]]:
    """Calls that put a key of their own each, and set an event of so many bytes."""
    return [("put", f"{prefix}-{number}", 100, event) for number in range(count)]
