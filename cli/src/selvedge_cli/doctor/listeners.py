"""The services' ports: who listens there, and does it serve."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc.aio
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from selvedge_cli.connection import Connection, read_user
from selvedge_cli.doctor.findings import Finding, error, warning
from selvedge_cli.doctor.installation import Installation
from selvedge_cli.doctor.listener import HTTP2, TIMEOUT, Fault, NothingListens, dial, expiry
from selvedge_cli.errors import plain
from selvedge_cli.inspection import listeners_of

_SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass(frozen=True)
class Listener:
    """A port of a service.

    Attributes:
        service: whose.
        purpose: what for.
        address: host:port.
        protocol: what it speaks on top of TLS, None for HTTP.
    """

    service: str
    purpose: str
    address: str
    protocol: str | None = HTTP2

    def __str__(self) -> str:
        return f"{self.address}, {self.service}'s {self.purpose}"


def examine(installation: Installation) -> Iterator[Finding]:
    """Dial every port; ask those that can be dialled whether they serve."""
    listeners = known_listeners(installation)
    ask = partial(_ask, installation.root, installation.pair)
    with ThreadPoolExecutor(len(listeners)) as pool:
        answers = dict(zip(listeners, pool.map(ask, listeners), strict=True))
    if all(isinstance(answer, NothingListens) for answer in answers.values()):
        yield _nothing_runs(installation, listeners)
        return
    answering = []
    for listener, answer in answers.items():
        if isinstance(answer, Fault):
            yield error(listener, answer.what, _remedy(installation, listener, answer))
            continue
        answering.append(listener)
        if (fault := expiry(answer, installation.now)) is not None:
            found = error if answer.not_valid_after_utc <= installation.now else warning
            yield found(listener, fault.what, fault.remedy)
    if installation.pair is not None:
        grpc_listeners = [each for each in answering if each.protocol == HTTP2]
        yield from asyncio.run(_ask_health(installation, grpc_listeners))


def known_listeners(installation: Installation) -> list[Listener]:
    """Every port of the services, at the addresses that the home has for them."""
    known = []
    for service, (listeners, operations) in listeners_of(installation.settings.addresses).items():
        known += [Listener(service, purpose, address) for purpose, address in listeners.items()]
        known.append(Listener(service, "operations endpoint", operations, protocol=None))
    return known


def _ask(
    root: Path | None, pair: tuple[Path, Path] | None, listener: Listener
) -> x509.Certificate | Fault:
    try:
        return dial(listener.address, root, pair, protocol=listener.protocol)
    except Fault as fault:
        return fault


def _nothing_runs(installation: Installation, listeners: list[Listener]) -> Finding:
    places = ", ".join(listener.address for listener in listeners)
    return error(
        places,
        "no service runs here, for nothing listens at any of them",
        "start them with `selvedge up` or `docker compose up --wait`; where they run elsewhere, "
        f"give that home with --home (it is {installation.home} now), or their addresses",
    )


def _remedy(installation: Installation, listener: Listener, fault: Fault) -> str:
    """What to do; where `selvedge up` runs the services, its log knows more."""
    log = installation.home / "logs" / f"{listener.service}.log"
    if isinstance(fault, NothingListens) and installation.running is not None and log.exists():
        return f"`selvedge up` runs as process {installation.running}: {log} says why"
    return fault.remedy


async def _ask_health(installation: Installation, listeners: list[Listener]) -> list[Finding]:
    user = read_user(installation.user.folder)
    async with Connection(user, installation.settings) as connection:
        found = await asyncio.gather(*(_health(connection, listener) for listener in listeners))
    return [finding for finding in found if finding is not None]


async def _health(connection: Connection, listener: Listener) -> Finding | None:
    stub = health_pb2_grpc.HealthStub(connection.channel(listener.address))
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    except grpc.aio.AioRpcError as failure:
        said = f"{failure.code().name}: {plain(failure.details() or 'no reason given')}"
        return error(listener, f"does not say how it is ({said})", "its log says why")
    if answer.status != _SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return error(
            listener, f"says that it is {status}", "wait until it has started, or see its log"
        )
    return None
