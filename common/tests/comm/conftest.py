"""TLS authorities made for a test run, and a server for a test, stopped at its end."""

import asyncio
import datetime
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import REGISTRY
from selvedge_common import comm

Prepare = Callable[[comm.GRPCServer], None]


@dataclass(frozen=True)
class Pair:
    certificate: bytes
    key: bytes


class TLSAuthority:
    """A TLS root that issues pairs for 127.0.0.1 and localhost; all PEM."""

    def __init__(self, name: str) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.root = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    def issue(self, name: str) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        certificate = (
            self._builder(subject, key.public_key())
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Pair(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )


@pytest.fixture(scope="session")
def make_authority() -> Callable[[str], TLSAuthority]:
    return TLSAuthority


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait until a condition holds, ten seconds at most."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[comm.GRPCServer]]]:
    """Start a server that `prepare` adds services to."""
    servers: list[comm.GRPCServer] = []

    async def start(prepare: Prepare, config: comm.ServerConfig | None = None) -> comm.GRPCServer:
        server = comm.GRPCServer("127.0.0.1:0", config or comm.ServerConfig())
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
