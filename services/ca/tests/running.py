"""A ca that really serves, in the test's own event loop, on a free port and a fresh volume."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certificate_authority import config, volume
from certificate_authority.config import Config
from certificate_authority.serving import serve
from certificate_authority.tokens import Grant
from selvedge_common import comm
from selvedge_common.process import Shutdown
from selvedge_protos.selvedge.ca.v1 import certificate_authority_pb2 as ca_pb2
from selvedge_protos.selvedge.ca.v1.certificate_authority_pb2_grpc import CertificateAuthorityStub

if TYPE_CHECKING:
    from selvedge_protos.selvedge.ca.v1.certificate_authority_pb2_grpc import (
        CertificateAuthorityAsyncStub,
    )

DEADLINE = 10.0


@dataclass
class RunningCa:
    """A serving ca; `mint` works on its volume as `certificate-authority token` does."""

    config: Config
    home: Path
    channel: grpc.aio.Channel

    @property
    def stub(self) -> CertificateAuthorityAsyncStub:
        return CertificateAuthorityStub(self.channel)

    def mint(self, name: str, profile: str, *hosts: str, seconds: float = 60) -> str:
        opened = volume.open_existing(self.config)
        try:
            return opened.tokens.mint(Grant(name, profile, hosts), timedelta(seconds=seconds))
        finally:
            opened.tokens.close()

    def member_file(self, name: str) -> Path:
        return self.home / "enrol" / name / "enrolment.json"

    async def issue(self, token: str, profile: int, csr: bytes | None = None) -> x509.Certificate:
        request = ca_pb2.IssueRequest(
            certificate_signing_request=signing_request() if csr is None else csr,
            token=token,
            profile=ca_pb2.Profile.ValueType(profile),
        )
        answer = await self.stub.Issue(request, timeout=DEADLINE)
        return x509.load_pem_x509_certificate(answer.certificate)


def signing_request(
    key: ec.EllipticCurvePrivateKey | None = None,
    subject: x509.Name | None = None,
    *extensions: x509.ExtensionType,
) -> bytes:
    """PKCS #10 in PEM, with whatever wishes a caller may have."""
    builder = x509.CertificateSigningRequestBuilder(subject or x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    request = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running_ca(
    home: Path, overlay: Path | None = None, **environ: str
) -> AsyncIterator[RunningCa]:
    """A ca on the volume `home`/ca with the members' folders below `home`/enrol.

    Args:
        overlay: a file of settings, for those that no variable can hold.
        environ: settings by their variables.
    """
    address = f"localhost:{free_port()}"
    settings = config.load(
        overlay,
        environ={
            "CORE_CA_FILESYSTEMPATH": str(home / "ca"),
            "CORE_ENROLMENT_FOLDER": str(home / "enrol"),
            "CORE_CA_ADDRESS": address,
            "CORE_CA_LISTENADDRESS": address,
            "CORE_OPERATIONS_LISTENADDRESS": "127.0.0.1:0",
        }
        | environ,
    )
    shutdown = Shutdown()
    serving = asyncio.create_task(serve(settings, shutdown))

    async def ready() -> bool:
        if serving.done():
            serving.result()
        root = home / "ca" / "tls" / "ca.crt"
        if not root.exists():
            return False
        try:
            async with comm.channel(address, root_cas=root.read_bytes()) as probe:
                await CertificateAuthorityStub(probe).Roots(ca_pb2.RootsRequest(), timeout=1)
        except grpc.aio.AioRpcError:
            return False
        return True

    await eventually(ready)
    root = (home / "ca" / "tls" / "ca.crt").read_bytes()
    try:
        async with comm.channel(address, root_cas=root) as channel:
            yield RunningCa(settings, home, channel)
    finally:
        shutdown.set()
        await serving
