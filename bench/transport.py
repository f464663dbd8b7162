"""Our server on each of its transports, and raw grpc.aio: the same load on all, round by round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import golang, load_client
from bench.certificates import write_certificates
from bench.comparison import Subject, Tally, compare
from bench.effort import Effort
from bench.process import memory, module, settle
from bench.progress import say
from bench.row import Row, verdict
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


async def measure(effort: Effort, folder: Path) -> list[Row]:
    """Put every load on every transport, then count what idle streams take.

    Raises:
        BenchError: a server does not do what it should.
    """
    try:
        bench = Bench(await golang.build("load"), effort, folder)
    except golang.NoGo as error:
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
        load: the load client's program.
        effort: how much is done.
        folder: where the certificates are.
    """

    def __init__(self, load: Path, effort: Effort, folder: Path) -> None:
        self._load = load
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
                        note=verdict(f"≤ {IDLE_AIM} KB", value <= IDLE_AIM)
                        if kind == NATIVE
                        else "",
                    )
                    for kind, value in zip(kinds, ours, strict=True)
                ]
        return rows

    async def _compare(
        self, servers: Mapping[str, Server], security: str, scenario: Scenario
    ) -> dict[str, Tally]:
        subjects = {}
        async with AsyncExitStack() as stack:
            for kind, server in servers.items():
                client = await stack.enter_async_context(
                    self._client(server, security, scenario, scenario.connections)
                )
                subjects[kind] = Subject(server.pid, client.rounds(self._effort.round_seconds))
            return await compare(subjects, self._effort.rounds)

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
        async with module("transport_server", kind, self._folder) as server:
            addresses = (await server.line()).split()
            yield Server(server.pid, dict(zip(SECURITIES, addresses, strict=True)))

    def _client(
        self, server: Server, security: str, scenario: Scenario, connections: int
    ) -> load_client.Running:
        return load_client.load_client(
            scenario.mode,
            server.addresses[security],
            built=self._load,
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
            note = verdict(f"≥ {aim:g}", tally.rate / raw.rate >= aim)
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


def _group(kind: str, security: str) -> str:
    return f"{GROUP} {kind}, {security}"


def _known(transport: Any) -> bool:
    try:
        comm.ServerConfig(transport=transport)
    except comm.CommError:
        return False
    return True
