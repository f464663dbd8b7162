"""Certificates replaced on disk while a server serves."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from selvedge_common import comm
from selvedge_common.config import Duration
from selvedge_common.config.sections import TLS, Files
from selvedge_common.material import Material
from selvedge_common.renewal import Renewal, renewing

Serve = Callable[..., Awaitable[comm.GRPCServer]]
Connect = Callable[..., Any]
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


class Volume:
    """The folder of a service, and a server on what it holds."""

    def __init__(self, folder: Path, authority: Any) -> None:
        self.folder = folder
        self.roots = folder / "roots.pem"
        self.tls = TLS(
            enabled=True,
            client_auth_required=True,
            client_auth_requested=False,
            client_root_cas=Files([self.roots]),
            revocation_lists=Files([]),
            reload_interval=Duration(0.01),
        )
        self.material = Material(folder, "Org1MSP")
        (folder / "tls").mkdir()
        self.roots.write_bytes(authority.root)
        self.write(authority)

    def write(self, authority: Any, key: bytes | None = None) -> None:
        """Another pair, and another root."""
        pair = authority.issue("server")
        for name, content in {
            "ca.crt": authority.root,
            "server.crt": pair.certificate,
            "server.key": key or pair.key,
        }.items():
            self.replace(self.folder / "tls" / name, content)

    @staticmethod
    def replace(file: Path, content: bytes) -> None:
        """As whoever renews certificates does: never half a file."""
        part = file.with_suffix(".part")
        part.write_bytes(content)
        os.replace(part, file)


@pytest.fixture
def volume(tmp_path: Path, make_tls_authority: Callable[[str], Any]) -> Volume:
    return Volume(tmp_path, make_tls_authority("old"))


async def _answers(connect: Connect, server: comm.GRPCServer, authority: Any) -> bool:
    pair = authority.issue("client")
    channel = connect(server, root_cas=authority.root, certificate=pair.certificate, key=pair.key)
    answer = await health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(), timeout=10
    )
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_another_pair_and_other_roots_are_served_without_a_restart(
    volume: Volume,
    serve: Serve,
    connect: Connect,
    make_tls_authority: Callable[[str], Any],
    eventually: Eventually,
    count: Callable[..., float],
) -> None:
    config = comm.ServerConfig(secure=volume.material.server(volume.tls))
    server = await serve(lambda _: None, config)
    before, after = server.server_certificate, make_tls_authority("new")
    async with renewing(volume.material, volume.tls, [server]):
        volume.write(after)
        await eventually(lambda: server.server_certificate != before)
        assert await _answers(connect, server, after)
    until = x509.load_pem_x509_certificate(server.server_certificate).not_valid_after_utc
    name = "selvedge_certificate_expiry_timestamp_seconds"
    assert count(name, certificate="tls-server") == until.timestamp()
    # One that was taken off is trusted no more; the other file still names the old root.
    assert len(server.client_root_cas) == 2


async def test_pair_that_cannot_be_used_is_told_of_once_and_the_one_before_is_served_on(
    volume: Volume,
    serve: Serve,
    connect: Connect,
    make_tls_authority: Callable[[str], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = comm.ServerConfig(secure=volume.material.server(volume.tls))
    server = await serve(lambda _: None, config)
    before, after = server.server_certificate, make_tls_authority("new")
    renewal = Renewal(volume.material, volume.tls, [server])
    await renewal.look()
    assert not caplog.records
    volume.write(after, key=after.issue("another").key)
    await renewal.look()
    await renewal.look()
    assert server.server_certificate == before
    [record] = caplog.records
    assert "does not belong to its certificate" in record.getMessage()
    volume.write(after)
    await renewal.look()
    assert await _answers(connect, server, after)


async def test_without_tls_there_is_nothing_to_look_for(volume: Volume) -> None:
    off = TLS(False, False, False, Files([]), Files([]), Duration(0.01))
    async with renewing(volume.material, off, []):
        pass
