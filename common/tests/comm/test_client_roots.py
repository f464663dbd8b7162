"""Client certificates and their roots, over real TLS, changed while serving."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from selvedge_common import comm
from selvedge_common.comm.native.connection import Connection
from selvedge_common.comm.native.server import NativeServer

Serve = Callable[..., Awaitable[comm.GRPCServer]]
Connect = Callable[..., Any]  # the stubs know no raw messages
# For what grpcio cannot do, and says so.
only_native = pytest.mark.parametrize("transport", ["native"])


class House:
    """A server that requires client certificates, and clients of two roots."""

    def __init__(
        self, serve: Serve, connect: Connect, make_tls_authority: Callable[..., Any]
    ) -> None:
        self._serve = serve
        self._connect = connect
        self.authority = make_tls_authority("server root")
        self.first = make_tls_authority("first client root")
        self.second = make_tls_authority("second client root")
        self.refusal = ""  # the last one's details

    async def start(self, *client_roots: bytes, require: bool = True, **more: Any) -> None:
        pair = self.authority.issue("server")
        secure = comm.SecureServerConfig(
            use_tls=True,
            certificate=pair.certificate,
            key=pair.key,
            client_root_cas=client_roots,
            require_client_certificate=require,
            **more,
        )
        self.server = await self._serve(lambda _: None, comm.ServerConfig(secure=secure))

    async def admits(self, authority: Any | None, pair: Any = None) -> bool:
        """Whether a new connection with a certificate of that authority, or with that pair, gets an
        answer."""
        client = {}
        if authority is not None:
            pair = authority.issue("client")
        if pair is not None:
            client = {"certificate": pair.certificate, "key": pair.key}
        channel = self._connect(self.server, root_cas=self.authority.root, **client)
        try:
            await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=10
            )
        except grpc.aio.AioRpcError as error:
            self.refusal = str(error.details())
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED):
                return False
            raise
        finally:
            await channel.close()
        return True

    async def watch(self, authority: Any, pair: Any = None) -> Any:
        """A Watch call over a connection with a certificate of that authority, or with that pair,
        past its first answer."""
        pair = pair or authority.issue("client")
        channel = self._connect(
            self.server, root_cas=self.authority.root, certificate=pair.certificate, key=pair.key
        )
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
        return call


@pytest.fixture
def native_certificates(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[bytes]]:
    """The certificates of the clients that have come, PEM."""
    seen: list[bytes] = []
    arrived = NativeServer.arrived

    def note(server: NativeServer, connection: Connection) -> None:
        seen.extend(connection.auth_context()["x509_pem_cert"])
        arrived(server, connection)

    monkeypatch.setattr(NativeServer, "arrived", note)
    return lambda: seen


@pytest.fixture
def house(serve: Serve, connect: Connect, make_tls_authority: Callable[..., Any]) -> House:
    return House(serve, connect, make_tls_authority)


async def test_client_without_certificate_is_refused(house: House) -> None:
    await house.start(house.first.root)
    assert house.server.tls_enabled
    assert house.server.mutual_tls_required
    assert await house.admits(house.first)
    assert not await house.admits(None)
    assert not await house.admits(house.second)


async def test_client_certificates_are_not_asked_for_unless_required(house: House) -> None:
    await house.start(house.first.root, require=False)
    assert not house.server.mutual_tls_required
    assert await house.admits(None)


async def test_server_that_began_without_roots_admits_after_append(house: House) -> None:
    await house.start()
    assert not await house.admits(house.first)
    house.server.append_client_root_cas([house.first.root])
    assert await house.admits(house.first)
    assert not await house.admits(house.second)
    assert not await house.admits(None)


async def test_appended_roots_join_those_that_were_there(house: House) -> None:
    await house.start(house.first.root)
    house.server.append_client_root_cas([house.second.root])
    assert await house.admits(house.first)
    assert await house.admits(house.second)
    assert house.server.client_root_cas == [house.first.root, house.second.root]


async def test_one_pem_may_hold_several_roots(house: House) -> None:
    await house.start()
    house.server.append_client_root_cas([house.first.root + house.second.root])
    assert await house.admits(house.first)
    assert await house.admits(house.second)


async def test_removed_root_is_refused_and_others_stay(house: House) -> None:
    await house.start(house.first.root, house.second.root)
    assert await house.admits(house.first)
    house.server.remove_client_root_cas([house.first.root])
    assert not await house.admits(house.first)
    assert await house.admits(house.second)


async def test_last_root_removed_leaves_nobody_admitted(house: House) -> None:
    await house.start(house.first.root)
    house.server.remove_client_root_cas([house.first.root])
    assert not await house.admits(house.first)


async def test_set_replaces_all_roots(house: House) -> None:
    await house.start(house.first.root)
    house.server.set_client_root_cas([house.second.root])
    assert not await house.admits(house.first)
    assert await house.admits(house.second)


async def test_connections_outlive_changes_that_leave_their_chain_good(
    house: House, make_tls_authority: Callable[..., Any]
) -> None:
    await house.start(house.first.root)
    watch = await house.watch(house.first)
    house.server.append_client_root_cas([house.second.root])
    house.server.set_client_root_cas([house.second.root, house.first.renewed()])
    house.server.remove_client_root_cas([house.second.root])
    next_pair = make_tls_authority("next server root").issue("server")
    house.server.replace_server_certificate(next_pair.certificate, next_pair.key)
    house.server.set_serving("", False)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_only_the_native_transport_ends_connections_whose_root_is_gone(
    house: House, transport: Any
) -> None:
    await house.start(house.first.root, house.second.root)
    leaving, staying = await house.watch(house.first), await house.watch(house.second)
    house.server.remove_client_root_cas([house.first.root])
    house.server.set_serving("", False)
    assert (await staying.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    if transport == "native":
        assert await leaving.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "its root is not trusted any more" in await leaving.details()
    else:
        assert (await leaving.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


@only_native
async def test_certificate_that_is_asked_for_is_verified_if_given(house: House) -> None:
    await house.start(house.first.root, require=False, request_client_certificate=True)
    assert await house.admits(None)
    assert await house.admits(house.first)
    assert not await house.admits(house.second)


@only_native
async def test_revoked_certificate_is_refused_and_its_connection_ended(house: House) -> None:
    lost, good = house.first.issue("lost"), house.first.issue("good")
    await house.start(house.first.root, house.second.root)
    leaving, staying = await house.watch(house.first, lost), await house.watch(house.first, good)
    house.server.set_revocation_lists([house.second.revoke(), house.first.revoke(lost)])
    assert await leaving.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "certificate is revoked" in await leaving.details()
    assert not await house.admits(None, lost)
    assert "certificate is revoked" in house.refusal
    assert await house.admits(None, good)
    house.server.set_serving("", False)
    assert (await staying.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    house.server.set_revocation_lists([])
    assert await house.admits(None, lost)


@only_native
async def test_session_that_tls_1_2_takes_up_again_is_served_and_known(
    house: House, native_certificates: Any, tmp_path: Path
) -> None:
    pair = house.first.issue("client")
    await house.start(house.first.root)
    (tmp_path / "pair.pem").write_bytes(pair.certificate + pair.key)
    client = ssl.create_default_context(cadata=house.authority.root.decode())
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_alpn_protocols(["h2"])
    client.load_cert_chain(tmp_path / "pair.pem")
    host, _, port = house.server.address.rpartition(":")

    def greeted(session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            client.wrap_socket(plain, server_hostname=host, session=session) as line,
        ):
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert len(line.recv(9)) == 9
            return line.session_reused, line.session

    _, session = await asyncio.to_thread(greeted, None)
    for _ in range(2):
        again, session = await asyncio.to_thread(greeted, session)
        assert again
    assert native_certificates() == [pair.certificate] * 3
    # The list counts for it as for any other.
    house.server.set_revocation_lists([house.first.revoke(pair)])
    assert not await house.admits(None, pair)


@only_native
async def test_revocation_lists_hold_from_the_start(house: House) -> None:
    lost = house.first.issue("lost")
    await house.start(house.first.root, revocation_lists=(house.first.revoke(lost),))
    assert not await house.admits(None, lost)
    assert await house.admits(house.first)


@only_native
async def test_revocation_list_that_cannot_be_used_changes_nothing(house: House) -> None:
    lost = house.first.issue("lost")
    await house.start(house.first.root)
    with pytest.raises(comm.CertificateError, match="not signed by any client root"):
        house.server.set_revocation_lists([house.first.revoke(lost), house.second.revoke()])
    with pytest.raises(comm.CertificateError, match="cannot be read"):
        house.server.set_revocation_lists([house.first.root])
    assert await house.admits(None, lost)


async def test_grpcio_says_what_it_cannot_do_with_certificates(
    house: House, make_tls_authority: Callable[..., Any]
) -> None:
    tls: dict[str, Any] = {"use_tls": True, "certificate": b"c", "key": b"k"}
    with pytest.raises(comm.CommError, match="cannot ask for a client certificate"):
        comm.ServerConfig(
            secure=comm.SecureServerConfig(**tls, request_client_certificate=True),
            transport="grpcio",
        )
    with pytest.raises(comm.CommError, match="reads no revocation lists"):
        comm.ServerConfig(
            secure=comm.SecureServerConfig(**tls, revocation_lists=(b"list",)), transport="grpcio"
        )
    await house.start(house.first.root)
    if house.server.transport == "grpcio":
        with pytest.raises(comm.CommError, match="reads no revocation lists"):
            house.server.set_revocation_lists([house.first.revoke()])


@pytest.mark.parametrize("change", ["append", "remove", "set"])
async def test_pem_without_certificate_is_refused_and_changes_nothing(
    house: House, change: str
) -> None:
    await house.start(house.first.root)
    method = getattr(house.server, f"{change}_client_root_cas")
    key = house.second.issue("client").key
    with pytest.raises(comm.NoClientRootCertificates, match="No client root certificates found"):
        method([house.second.root, key])
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with pytest.raises(comm.CertificateError, match="cannot be read"):
        method([broken])
    assert house.server.client_root_cas == [house.first.root]


async def test_server_certificate_is_replaced_while_serving(
    house: House, make_tls_authority: Callable[..., Any]
) -> None:
    await house.start(require=False)
    assert await house.admits(None)
    house.authority = make_tls_authority("next server root")
    assert not await house.admits(None)
    pair = house.authority.issue("server")
    house.server.replace_server_certificate(pair.certificate, pair.key)
    assert await house.admits(None)
    assert house.server.server_certificate == pair.certificate
    with pytest.raises(comm.CertificateError, match="does not belong"):
        house.server.replace_server_certificate(
            pair.certificate, house.authority.issue("another").key
        )
    assert await house.admits(None)


async def test_roots_of_a_plaintext_server_are_refused(serve: Serve, house: House) -> None:
    server = await serve(lambda _: None)
    assert not server.tls_enabled
    assert server.server_certificate == b""
    with pytest.raises(comm.CommError, match="without TLS"):
        server.append_client_root_cas([house.first.root])


async def test_tls_without_certificate_is_refused() -> None:
    config = comm.ServerConfig(secure=comm.SecureServerConfig(use_tls=True))
    with pytest.raises(comm.CertificateError, match="certificate or key is missing"):
        comm.GRPCServer("127.0.0.1:0", config)
