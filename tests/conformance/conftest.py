"""Our server, on each transport and with each security, for clients that others wrote."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from common.tests.conftest import Pair, TLSAuthority
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from tests.conformance.interop_service import add_interop_service

from selvedge_common import comm

# The largest message of an interop client is 10 MiB, past the default of our servers.
_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Material:
    """TLS material in files, and the server's pair."""

    ca: Path
    certificate: Path
    key: Path
    truststore: Path
    truststore_password: str
    server: Pair = field(repr=False)


@dataclass(frozen=True)
class Target:
    """A server that listens, and what a client needs to reach it."""

    server: comm.GRPCServer
    material: Material | None  # of TLS

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def port(self) -> str:
        return self.server.address.rpartition(":")[2]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the services run on, whose TLS is not asyncio's."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("tls")
    authority = TLSAuthority("conformance")
    client = authority.issue("client")
    # Java reads roots from a store of its own kind.
    password = "unguarded"
    root = pkcs12.PKCS12Certificate(x509.load_pem_x509_certificate(authority.root), b"root")
    store = pkcs12.serialize_java_truststore([root], BestAvailableEncryption(password.encode()))
    for name, content in {
        "ca.crt": authority.root,
        "client.crt": client.certificate,
        "client.key": client.key,
        "roots.p12": store,
    }.items():
        (folder / name).write_bytes(content)
    return Material(
        ca=folder / "ca.crt",
        certificate=folder / "client.crt",
        key=folder / "client.key",
        truststore=folder / "roots.p12",
        truststore_password=password,
        server=authority.issue("server"),
    )


@pytest.fixture
async def target(transport: Any, security: str, material: Material) -> AsyncIterator[Target]:
    """A server with the interop service; a test's parameters say which transport and security.
    Whatever a client does, nothing in the server may fail unhandled."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    secure = comm.SecureServerConfig()
    if security != "plaintext":
        secure = comm.SecureServerConfig(
            use_tls=True,
            certificate=material.server.certificate,
            key=material.server.key,
            client_root_cas=(material.ca.read_bytes(),),
            require_client_certificate=security == "mtls",
        )
    config = comm.ServerConfig(
        secure=secure,
        transport=transport,
        max_receive_bytes=_MAX_BYTES,
        max_send_bytes=_MAX_BYTES,
    )
    server = comm.GRPCServer("127.0.0.1:0", config)
    add_interop_service(server)
    await server.start()
    try:
        yield Target(server, material if secure.use_tls else None)
    finally:
        await server.stop(0)
    assert not faults
