"""Where the services are measured: a running house, the raw server and the chaincode, each in
processes of their own, and a client in this one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.chaincode import NAME
from bench.client import Client
from bench.effort import Effort
from bench.house import House, running
from bench.process import cpu_seconds, program, settle


@dataclass(frozen=True)
class RawServer:
    """The raw server.

    Attributes:
        pid: its process.
        address: where it listens.
    """

    pid: int
    address: str


@dataclass(frozen=True)
class Site:
    """What the measurements need."""

    effort: Effort
    house: House
    raw: RawServer
    client: Client

    def pid(self, service: str) -> int:
        """The process of a service now."""
        return self.house.pids()[service]

    async def raw_call(self, size: int) -> Any:
        """A unary call of the raw server, which answers with so many bytes."""
        channel = await self.client.channel(self.raw.address)
        return channel.unary_unary(f"/bench.Raw/answer-{size}")

    async def raw_stream(self, size: int) -> Any:
        """A stream of the raw server, which answers each message with so many bytes."""
        channel = await self.client.channel(self.raw.address)
        return channel.stream_stream(f"/bench.Raw/stream-{size}")()

    async def raw_events(self, size: int, count: int) -> Any:
        """A stream of the raw server that sends so many events once it is told to."""
        channel = await self.client.channel(self.raw.address)
        stream = channel.stream_stream(f"/bench.Raw/events-{size}-{count}")()
        await stream.initial_metadata()
        return stream

    async def idle(self) -> None:
        """Return once nothing is left of what was done before."""
        await settle([*self.house.pids().values(), self.raw.pid])


class Usage:
    """Processor time of a server's process, from when this is made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = cpu_seconds(pid)

    def each(self, count: int) -> float:
        """Microseconds until now, for each of so many calls or events."""
        return (cpu_seconds(self._pid) - self._before) / count * 1e6


@asynccontextmanager
async def raw_server(house: House) -> AsyncIterator[RawServer]:
    """The raw server, with the certificate that the event hub of a house has or had."""
    async with program("raw_server", str(house.home / "event-hub")) as (pid, port):
        yield RawServer(pid, f"localhost:{port}")


@asynccontextmanager
async def site(effort: Effort, folder: Path) -> AsyncIterator[Site]:
    """Everything started, until the block ends."""
    async with running(folder) as house:
        certificates = await house.issue_chaincode(NAME)
        chaincode = program("chaincode", house.addresses.chaincode, str(certificates))
        async with raw_server(house) as raw, chaincode, Client(house) as client:
            yield Site(effort, house, raw, client)


def puts(count: int, *, prefix: str, event: int = 0) -> Sequence[tuple[str, ...]]:
    """Calls that put a key of their own each, and set an event of so many bytes."""
    return [("put", f"{prefix}-{number}", "100", str(event)) for number in range(count)]
