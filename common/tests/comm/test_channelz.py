"""grpc.channelz.v1 on both transports, asked by a real client."""

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from selvedge_common import comm

Serve = Callable[..., Awaitable[comm.GRPCServer]]
Connect = Callable[..., Any]


@pytest.fixture
async def tls(make_tls_authority: Callable[[str], Any]) -> Any:
    return make_tls_authority("root")


async def _serve(serve: Serve, tls: Any) -> comm.GRPCServer:
    config = comm.ServerConfig(secure=tls.mutual_tls(), channelz=True)
    return await serve(lambda _: None, config)


async def test_a_server_is_found_with_its_calls_and_its_connections(
    serve: Serve, connect: Connect, tls: Any
) -> None:
    server, client = await _serve(serve, tls), tls.issue("client")
    channel = connect(server, root_cas=tls.root, certificate=client.certificate, key=client.key)
    health = health_pb2_grpc.HealthStub(channel)
    for _ in range(3):
        await health.Check(health_pb2.HealthCheckRequest())
    with pytest.raises(grpc.aio.AioRpcError):
        await health.Check(health_pb2.HealthCheckRequest(service="none.Such"))

    channelz = channelz_pb2_grpc.ChannelzStub(channel)
    servers = await channelz.GetServers(channelz_pb2.GetServersRequest())
    assert servers.end
    found = max(servers.server, key=lambda each: each.ref.server_id)
    assert (found.data.calls_succeeded, found.data.calls_failed) in [(3, 1), (4, 0)]
    assert found.data.calls_started == 5  # this one is still under way

    again = await channelz.GetServer(channelz_pb2.GetServerRequest(server_id=found.ref.server_id))
    assert again.server.ref == found.ref
    sockets = await channelz.GetServerSockets(
        channelz_pb2.GetServerSocketsRequest(server_id=found.ref.server_id)
    )
    [reference] = sockets.socket_ref
    answer = await channelz.GetSocket(channelz_pb2.GetSocketRequest(socket_id=reference.socket_id))
    assert answer.socket.ref == reference
    assert answer.socket.data.streams_started == 8
    remote = answer.socket.remote.tcpip_address.ip_address
    assert ipaddress.ip_address(remote) == ipaddress.ip_address("127.0.0.1")
    if server.transport == "native":
        from cryptography import x509

        shown = x509.load_der_x509_certificate(answer.socket.security.tls.remote_certificate)
        assert shown == x509.load_pem_x509_certificate(client.certificate)
        assert "AES" in answer.socket.security.tls.standard_name


async def test_what_is_not_there_is_not_found(serve: Serve, connect: Connect, tls: Any) -> None:
    server, client = await _serve(serve, tls), tls.issue("client")
    channelz = channelz_pb2_grpc.ChannelzStub(
        connect(server, root_cas=tls.root, certificate=client.certificate, key=client.key)
    )
    for ask, request in [
        (channelz.GetServer, channelz_pb2.GetServerRequest(server_id=987654321)),
        (channelz.GetServerSockets, channelz_pb2.GetServerSocketsRequest(server_id=987654321)),
        (channelz.GetSocket, channelz_pb2.GetSocketRequest(socket_id=987654321)),
        (channelz.GetChannel, channelz_pb2.GetChannelRequest(channel_id=987654321)),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ask(request)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND, request


async def test_channelz_is_served_only_if_asked_for(serve: Serve, connect: Connect) -> None:
    server = await serve(lambda _: None)
    channelz = channelz_pb2_grpc.ChannelzStub(connect(server))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channelz.GetServers(channelz_pb2.GetServersRequest())
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
