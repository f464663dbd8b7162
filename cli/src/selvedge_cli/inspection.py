"""A look at everything: who serves, until when certificates last, where the channel is."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from http.client import HTTPSConnection
from typing import Any

import grpc.aio
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from selvedge_cli import deliver
from selvedge_cli.addresses import Addresses, port_of
from selvedge_cli.connection import Connection, read_user, user_folder
from selvedge_cli.errors import CommandError, plain
from selvedge_cli.hub_watch import look_at_hub
from selvedge_cli.options import Settings
from selvedge_common.healthcheck import Unhealthy, check

TIMEOUT = 3.0
"""Seconds for each question."""
_STREAMS = re.compile(r"^chaincode_streams (\d+)", re.MULTILINE)
_SOURCE = re.compile(
    r'^eventhub_source_(connected|height|behind)\{channel="([^"]+)"\} (\S+)', re.MULTILINE
)


@dataclass(frozen=True)
class Endpoint:
    """One listener.

    Attributes:
        what: what it serves.
        address: host:port.
        error: why it is not well; empty when it is.
        certificate_until: when the certificate that it shows expires, ISO 8601.
        answers: whether there is anybody.
    """

    what: str
    address: str
    error: str = ""
    certificate_until: str | None = None
    answers: bool = True


@dataclass(frozen=True)
class ServiceStatus:
    """One service with its listeners."""

    name: str
    endpoints: list[Endpoint]

    @property
    def up(self) -> bool:
        """Whether all of it is well."""
        return not any(endpoint.error for endpoint in self.endpoints)

    @property
    def answers(self) -> bool:
        """Whether all of it answers, well or not."""
        return all(endpoint.answers for endpoint in self.endpoints)


@dataclass(frozen=True)
class ChannelStatus:
    """Where the channel is, or why that is not known."""

    name: str
    height: int | None = None
    last_block_hash: str | None = None
    error: str = ""


@dataclass(frozen=True)
class HubChannel:
    """A channel as the event hub has it.

    Attributes:
        height: how many of its blocks were told.
        behind: how many more the hub's source has, as far as the hub has seen.
        connected: whether there is a source that is read.
        trouble: why it is not read, or not on; empty where the hub does not tell.
    """

    name: str
    height: int
    behind: int
    connected: bool
    trouble: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that was found."""

    services: list[ServiceStatus]
    channel: ChannelStatus
    hub_channels: list[HubChannel]
    chaincodes: int | None
    user: dict[str, str] = field(default_factory=dict)

    @property
    def up(self) -> bool:
        """Whether all is well."""
        return all(service.up for service in self.services) and not self.channel.error

    def record(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "up": self.up,
            "services": [
                {
                    "name": service.name,
                    "up": service.up,
                    "endpoints": [*map(asdict, service.endpoints)],
                }
                for service in self.services
            ],
            "channel": asdict(self.channel),
            "hub_channels": [*map(asdict, self.hub_channels)],
            "chaincodes": self.chaincodes,
            "user": self.user,
        }


async def inspect(connection: Connection) -> Report:
    """Ask all services, at the same time."""
    addresses = connection.settings.addresses
    layout = listeners_of(addresses)
    root = connection.user.tls_root
    found, channel, peer_metrics, hub_metrics, troubles = await asyncio.gather(
        asyncio.gather(*(_service(connection, name, *parts) for name, parts in layout.items())),
        _channel(connection),
        asyncio.to_thread(_metrics, addresses.peer_operations, root),
        asyncio.to_thread(_metrics, addresses.events_operations, root),
        _troubles(connection.settings),
    )
    signer = connection.user.signer
    user = {
        "name": connection.settings.user,
        "identity_until": signer.expires_at.isoformat(),
        "tls_until": _expiry(connection.user.tls_certificate),
    }
    streams = _STREAMS.search(peer_metrics)
    chaincodes = int(streams[1]) if streams else None
    return Report(found, channel, _hub_channels(hub_metrics, troubles), chaincodes, user)


def listeners_of(addresses: Addresses) -> dict[str, tuple[dict[str, str], str]]:
    """Each service's gRPC listeners by what they are for, and its operations endpoint."""
    return {
        "ca": ({"certificates": addresses.ca}, addresses.ca_operations),
        "chaincode-support": (
            {
                "peer API": addresses.peer,
                "chaincode listener": addresses.chaincode,
                "ordering": addresses.orderer,
            },
            addresses.peer_operations,
        ),
        "event-hub": ({"events": addresses.events}, addresses.events_operations),
    }


async def _service(
    connection: Connection, name: str, listeners: dict[str, str], operations: str
) -> ServiceStatus:
    endpoints = await asyncio.gather(
        *(_listener(connection, what, address) for what, address in listeners.items()),
        _operations(connection, operations),
    )
    return ServiceStatus(name, list(endpoints))


async def _listener(connection: Connection, what: str, address: str) -> Endpoint:
    health = health_pb2_grpc.HealthStub(connection.channel(address))
    try:
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    except grpc.aio.AioRpcError as error:
        return Endpoint(
            what,
            address,
            f"{error.code().name}: {plain(error.details() or 'no reason given')}",
            answers=error.code()
            not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED),
        )
    state = ""
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return Endpoint(
        what, address, state, await asyncio.to_thread(_shown_until, connection, address)
    )


async def _operations(connection: Connection, address: str) -> Endpoint:
    root = user_folder(connection.settings) / "tls" / "ca.crt"
    try:
        await asyncio.to_thread(check, f"https://{address}/healthz", root, TIMEOUT)
    except Unhealthy as error:
        if error.answer is None:
            return Endpoint("operations", address, str(error), answers=False)
        return Endpoint("operations", address, _reasons(error.answer) or str(error))
    return Endpoint(
        "operations", address, "", await asyncio.to_thread(_shown_until, connection, address)
    )


async def _channel(connection: Connection) -> ChannelStatus:
    name = connection.settings.channel
    try:
        async with asyncio.timeout(TIMEOUT):
            chain = await deliver.look_at(connection)
    except TimeoutError:
        return ChannelStatus(name, error=f"its newest block did not come within {TIMEOUT:g} s")
    except CommandError as error:
        return ChannelStatus(name, error=str(error))
    return ChannelStatus(name, chain.newest + 1, chain.newest_hash)


def _reasons(answer: str) -> str:
    """Why a service is not healthy, by what its /healthz says; empty where that is something else.

    Follows Fabric's form (docs/source/operations_service.rst).
    """
    try:
        failed = json.loads(answer)["failed_checks"]
        return " ".join(f"{check['component']}: {check['reason']}" for check in failed)
    except (ValueError, KeyError, TypeError):
        return ""


async def _troubles(settings: Settings) -> Mapping[str, str]:
    """Why the event hub does not read its channels, by channel: it tells administrators alone, so
    the home's one asks. Nothing where there is none, or the hub does not tell."""
    try:
        administrator = read_user(user_folder(replace(settings, user="admin")))
        async with Connection(administrator, settings) as asking:
            state = await look_at_hub(asking, 1, TIMEOUT)
    except CommandError:
        return {}
    return {channel.name: channel.trouble for channel in state.channels}


def _hub_channels(metrics: str, troubles: Mapping[str, str]) -> list[HubChannel]:
    """What the event hub's metrics say of its channels, and it itself of their troubles."""
    found: dict[str, dict[str, int]] = {}
    for what, channel, value in _SOURCE.findall(metrics):
        found.setdefault(channel, {})[what] = int(float(value))
    return [
        HubChannel(
            name,
            each.get("height", 0),
            each.get("behind", 0),
            bool(each.get("connected")),
            troubles.get(name, ""),
        )
        for name, each in found.items()
    ]


def _metrics(address: str, root: bytes) -> str:
    """The metrics of a service; empty where it does not tell them."""
    host, _, _ = address.rpartition(":")
    context = ssl.create_default_context(cadata=root.decode("ascii"))
    try:
        http = HTTPSConnection(host, port_of(address), timeout=TIMEOUT, context=context)
        try:
            http.request("GET", "/metrics")
            text = http.getresponse().read().decode(errors="replace")
        finally:
            http.close()
    except OSError:
        return ""
    return text


def _shown_until(connection: Connection, address: str) -> str | None:
    host, _, _ = address.rpartition(":")
    tls = user_folder(connection.settings) / "tls"
    # Whoever it is, its certificate is looked at; that it is ours was found out before.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        # Without it each look would be a refused handshake in the service's log.
        context.load_cert_chain(tls / "client.crt", tls / "client.key")
        with (
            socket.create_connection((host.strip("[]"), port_of(address)), TIMEOUT) as plain_socket,
            context.wrap_socket(plain_socket) as secured,
        ):
            shown = secured.getpeercert(binary_form=True)
    except OSError:
        return None
    return None if shown is None else _expiry(ssl.DER_cert_to_PEM_cert(shown).encode())


def _expiry(pem: bytes) -> str:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.isoformat()
