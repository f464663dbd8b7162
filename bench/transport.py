"""Our server on each of its transports, and raw grpc.aio: the same load on all, round by round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import load_client
from bench.certificates import write_certificates
from bench.effort import Effort
from bench.process import BenchError, cpu_seconds, memory, program, settle
from bench.progress import say
from bench.row import Row
from selvedge_common import comm

GROUP = "transport"
RAW = "raw"
NATIVE = "native"
OURS = (NATIVE, "grpcio")
PLAINTEXT = "plaintext"
SECURITIES = (PLAINTEXT, "mTLS")
MTLS_AIM = 1.5
"""What the native transport is to reach behind mTLS, as a multiple of raw grpc.aio."""
IDLE_AIM = 25
"""KB that an idle stream may take on the native transport."""


@dataclass(frozen=True)
class Scenario:
    """One load.

    Attributes:
        name: of its row.
        mode: of the load client.
        aim: what the native transport is to reach in plaintext, as a multiple of raw grpc.aio.
        connections: how many there are.
        streams: on each, or calls in flight.
        size: bytes of each message.
    """

    name: str
    mode: str
    aim: float | None = None
    connections: int = 1
    streams: int = 1
    size: int = 100


SCENARIOS = (
    *(Scenario(f"unary, {n} in flight", "unary", 2, streams=n) for n in (1, 8, 32)),
    Scenario("ping-pong, 1 stream", "pingpong", 2.2),
    Scenario("ping-pong, 32 streams, a connection each", "pingpong", 3, connections=32),
    *(
        Scenario(
            f"fan-out, {size} KB to {consumers}",
            "fanout",
            6 if size == 1 and consumers > 1 else None,
            connections=consumers,
            size=size * 1024,
        )
        for size in (1, 10, 100)
        for consumers in (1, 10, 100)
    ),
)


@dataclass(frozen=True)
class Server:
    """A server under test.

    Attributes:
        pid: its process.
        addresses: by security, where it listens.
    """

    pid: int
    addresses: Mapping[str, str]


@dataclass
class Tally:
    """What a server made of a scenario so far."""

    rates: list[float] = field(default_factory=list)
    messages: int = 0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Messages a second."""
        return median(self.rates)

    @property
    def cpu_each(self) -> float:
        """Microseconds of the server's processor time for each message."""
        return self.cpu / self.messages * 1e6


async def measure(effort: Effort, folder: Path) -> list[Row]:
    """Put every load on every transport, then count what idle streams take.

    Raises:
        BenchError: a server does not do what it should.
    """
    try:
        bench = Bench(await load_client.build(), effort, folder)
    except load_client.NoGo as error:
        return [Row(GROUP, "not measured", None, note=str(error))]
    write_certificates(folder)
    kinds = [kind for kind in OURS if _known(kind)]
    missing = [
        Row(GROUP, kind, None, note="not measured: this tree has no such transport")
        for kind in OURS
        if kind not in kinds
    ]
    rows = await bench.rates(kinds) + await bench.idle(kinds)
    groups = [_group(kind, security) for kind in kinds for security in SECURITIES]
    return missing + sorted(rows, key=lambda row: groups.index(row.group))


class Bench:
    """What the measurements share.

    Args:
        program: the load client.
        effort: how much is done.
        folder: where the certificates are.
    """

    def __init__(self, program: Path, effort: Effort, folder: Path) -> None:
        self._program = program
        self._effort = effort
        self._folder = folder

    async def rates(self, kinds: list[str]) -> list[Row]:
        """The rows of all scenarios."""
        rows: list[Row] = []
        async with AsyncExitStack() as stack:
            servers = {
                kind: await stack.enter_async_context(self._server(kind)) for kind in (*kinds, RAW)
            }
            for security in SECURITIES:
                for scenario in SCENARIOS:
                    say(f"{GROUP}, {security}, {scenario.name}")
                    tallies = await self._compare(servers, security, scenario)
                    rows += _rows(tallies, security, scenario)
        return rows

    async def idle(self, kinds: list[str]) -> list[Row]:
        """The rows on what idle streams take."""
        rows = []
        total = self._effort.idle_streams
        for security in SECURITIES:
            for connections, streams in ((total // 100, 100), (total // 4, 1)):
                name = f"idle stream, {streams} a connection"
                say(f"{GROUP}, {security}, {name}")
                scenario = Scenario(name, "idle", connections=connections, streams=streams)
                *ours, raw = await asyncio.gather(
                    *(self._idle(kind, security, scenario) for kind in (*kinds, RAW))
                )
                rows += [
                    Row(
                        _group(kind, security),
                        name,
                        value,
                        "KB",
                        raw,
                        note=_verdict(f"≤ {IDLE_AIM} KB", value <= IDLE_AIM)
                        if kind == NATIVE
                        else "",
                    )
                    for kind, value in zip(kinds, ours, strict=True)
                ]
        return rows

    async def _compare(
        self, servers: Mapping[str, Server], security: str, scenario: Scenario
    ) -> dict[str, Tally]:
        tallies = {kind: Tally() for kind in servers}
        async with AsyncExitStack() as stack:
            clients = {
                kind: await stack.enter_async_context(
                    self._client(server, security, scenario, scenario.connections)
                )
                for kind, server in servers.items()
            }
            for client in clients.values():
                _checked(await client.round(self._effort.round_seconds / 3), scenario)
            # In turns: whatever else the machine does meanwhile is then shared by all.
            for _ in range(self._effort.rounds):
                for kind, tally in tallies.items():
                    pid = servers[kind].pid
                    before = cpu_seconds(pid)
                    done = await clients[kind].round(self._effort.round_seconds)
                    tally.cpu += cpu_seconds(pid) - before
                    tally.rates.append(_checked(done, scenario).messages / done.seconds)
                    tally.messages += done.messages
        return tallies

    async def _idle(self, kind: str, security: str, scenario: Scenario) -> float:
        """KB a stream, by a server that has done nothing else: freed memory would be used again."""
        # The first ones are not counted: with them comes what a server loads on its first call.
        first = max(1, scenario.connections // 10)
        others = scenario.connections - first
        async with (
            self._server(kind) as server,
            self._client(server, security, scenario, first) as client,
        ):
            await settle([server.pid])
            before = memory(server.pid).pss
            await client.round(others)
            await settle([server.pid])
            return (memory(server.pid).pss - before) * 1024 / (others * scenario.streams)

    @asynccontextmanager
    async def _server(self, kind: str) -> AsyncIterator[Server]:
        async with program("transport_server", kind, str(self._folder)) as (pid, line):
            yield Server(pid, dict(zip(SECURITIES, line.split(), strict=True)))

    def _client(
        self, server: Server, security: str, scenario: Scenario, connections: int
    ) -> load_client.Running:
        return load_client.load_client(
            scenario.mode,
            server.addresses[security],
            program=self._program,
            tls=None if security == PLAINTEXT else self._folder,
            connections=connections,
            streams=scenario.streams,
            size=scenario.size,
        )


def _rows(tallies: dict[str, Tally], security: str, scenario: Scenario) -> Iterator[Row]:
    raw = tallies.pop(RAW)
    aim = scenario.aim if security == PLAINTEXT else MTLS_AIM
    for kind, tally in tallies.items():
        note = ""
        if kind == NATIVE and aim is not None:
            note = _verdict(f"≥ {aim:g}", tally.rate / raw.rate >= aim)
        yield Row(
            _group(kind, security),
            scenario.name,
            tally.rate,
            "/s",
            raw.rate,
            cpu=tally.cpu_each,
            raw_cpu=raw.cpu_each,
            note=note,
        )


def _checked(done: load_client.Round, scenario: Scenario) -> load_client.Round:
    if done.failed:
        raise BenchError(f"{scenario.name}: {done.failed} failed, the first with: {done.error}")
    if not done.messages:
        raise BenchError(f"{scenario.name}: not one message came")
    return done


def _verdict(aim: str, met: bool) -> str:
    return f"aim {aim}: {'met' if met else 'missed'}"


def _group(kind: str, security: str) -> str:
    return f"{GROUP} {kind}, {security}"


def _known(transport: Any) -> bool:
    try:
        comm.ServerConfig(transport=transport)
    except comm.CommError:
        return False
    return True
