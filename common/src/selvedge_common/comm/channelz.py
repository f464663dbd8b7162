"""grpc.channelz.v1: gRPC core's own channels and servers, and the native servers beside them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from google.protobuf.wrappers_pb2 import Int64Value
from grpc_channelz.v1 import _async as core
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from selvedge_common.comm.native import server as native
from selvedge_common.comm.native.connection import Connection
from selvedge_common.comm.native.tally import Tally

_PAGE = 100  # the most entries of one answer


class ChannelzServicer(core.ChannelzServicer):  # type: ignore[misc]  # untyped there
    """What gRPC core knows, and the native servers, of which it knows nothing."""

    async def GetServers(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = await core.ChannelzServicer.GetServers(request, context)
        servers = [each for each in native.SERVERS if each.tally.id >= request.start_server_id]
        page, answer.end = _page(servers, request.max_results)
        answer.server.extend(map(_server, page))
        return answer

    async def GetServer(self, request: Any, context: Any) -> Any:  # noqa: N802
        for server in native.SERVERS:
            if server.tally.id == request.server_id:
                return channelz_pb2.GetServerResponse(server=_server(server))
        return await core.ChannelzServicer.GetServer(request, context)

    async def GetServerSockets(self, request: Any, context: Any) -> Any:  # noqa: N802
        for server in native.SERVERS:
            if server.tally.id == request.server_id:
                found = [
                    each for each in server.connections if each.tally.id >= request.start_socket_id
                ]
                page, end = _page(found, request.max_results)
                references = [_socket_reference(each.tally, each.peer) for each in page]
                return channelz_pb2.GetServerSocketsResponse(socket_ref=references, end=end)
        return await core.ChannelzServicer.GetServerSockets(request, context)

    async def GetSocket(self, request: Any, context: Any) -> Any:  # noqa: N802
        for server in native.SERVERS:
            for connection in server.connections:
                if connection.tally.id == request.socket_id:
                    return channelz_pb2.GetSocketResponse(socket=_socket(connection))
        return await core.ChannelzServicer.GetSocket(request, context)


def add_channelz(server: Any) -> None:
    """Serve it."""
    channelz_pb2_grpc.add_ChannelzServicer_to_server(ChannelzServicer(), server)


def _page(found: Sequence[Any], most: int) -> tuple[Sequence[Any], bool]:
    """The first of what was found, and whether that is all."""
    most = min(max(most, 0) or _PAGE, _PAGE)
    return found[:most], len(found) <= most


def _server(server: native.NativeServer) -> Any:
    tally = server.tally
    return channelz_pb2.Server(
        ref=channelz_pb2.ServerRef(server_id=tally.id, name=server.address),
        data=channelz_pb2.ServerData(
            calls_started=tally.started,
            calls_succeeded=tally.succeeded,
            calls_failed=tally.failed,
            last_call_started_timestamp=_time(tally),
        ),
    )


def _socket(connection: Connection) -> Any:
    tally = connection.tally
    chain = connection.identity.chain
    tls = connection.identity.cipher
    return channelz_pb2.Socket(
        ref=_socket_reference(tally, connection.peer),
        data=channelz_pb2.SocketData(
            streams_started=tally.started,
            streams_succeeded=tally.succeeded,
            streams_failed=tally.failed,
            last_remote_stream_created_timestamp=_time(tally),
            remote_flow_control_window=Int64Value(value=connection.send_window),
        ),
        local=_address(connection.identity.local),
        remote=_address(connection.identity.remote),
        security=channelz_pb2.Security(
            tls=channelz_pb2.Security.Tls(
                standard_name=tls, remote_certificate=chain[0] if chain else b""
            )
        )
        if tls
        else None,
    )


def _socket_reference(tally: Tally, name: str) -> Any:
    return channelz_pb2.SocketRef(socket_id=tally.id, name=name)


def _time(tally: Tally) -> datetime | None:
    return datetime.fromtimestamp(tally.last_started, UTC) if tally.started else None


def _address(name: Sequence[Any]) -> Any:
    if not name:
        return None
    ip = ip_address(name[0].partition("%")[0]).packed
    return channelz_pb2.Address(
        tcpip_address=channelz_pb2.Address.TcpIpAddress(ip_address=ip, port=name[1])
    )
