"""GRPCServer: one listener, its TLS, its services."""

import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from selvedge_common.comm import health, listener, reflection
from selvedge_common.comm.calls import CallInterceptor, Calls
from selvedge_common.comm.credentials import ServerCredentials
from selvedge_common.comm.errors import AddressError, CommError
from selvedge_common.comm.grpcio.server import GrpcioServer
from selvedge_common.comm.message_stream import MessageStreamHandler
from selvedge_common.comm.native.server import NativeServer
from selvedge_common.comm.settings import SecureServerConfig, ServerConfig


class GRPCServer:
    """A gRPC server with health and reflection; follows Fabric's core/comm GRPCServer.

    Made inside a running event loop, which it then serves on. Pass it to the
    `add_*_to_server` functions of generated code before `start`.

    Args:
        address: `host:port`, held from now on; port 0 takes a free one.
        config: the transport, TLS, keepalive and limits.
        interceptors: asked for the handler of each call, in this order, as grpc.aio.server does.

    Raises:
        AddressError: "Missing address parameter", or the address cannot be bound.
        CertificateError: the TLS material cannot be used.
    """

    def __init__(
        self,
        address: str,
        config: ServerConfig,
        interceptors: Sequence["grpc.aio.ServerInterceptor[Any, Any]"] = (),
    ) -> None:
        if not address:
            raise AddressError("Missing address parameter")
        # The material is checked first, so that a refusal leaves no address held.
        credentials = _credentials(config)
        self._init(listener.hold(listener.listen(address)), config, credentials, interceptors)

    @classmethod
    def from_listener(
        cls,
        sock: socket.socket,
        config: ServerConfig,
        interceptors: Sequence["grpc.aio.ServerInterceptor[Any, Any]"] = (),
    ) -> "GRPCServer":
        """Serve on an open listener, those included that wait in its backlog; it is closed at stop.

        Raises:
            AddressError: it is not a bound TCP socket.
            CertificateError: the TLS material cannot be used.
            CommError: the transport is grpcio, which cannot be given a socket.
        """
        if config.transport != "native":
            raise CommError(
                f"The transport {config.transport} cannot serve on an open listener; use native, "
                "or give the address."
            )
        listener.check(sock)
        server = cls.__new__(cls)
        server._init(sock, config, _credentials(config), interceptors)
        return server

    def _init(
        self,
        sock: socket.socket,
        config: ServerConfig,
        credentials: ServerCredentials | None,
        interceptors: Sequence["grpc.aio.ServerInterceptor[Any, Any]"],
    ) -> None:
        self._listener = sock
        self._address = listener.name(sock)
        self._config = config
        self._credentials = credentials
        self._services: set[str] = set()
        self._message_streams: set[str] = set()
        self._health = health.HealthServicer()
        self._calls = Calls()
        transport = NativeServer if config.transport == "native" else GrpcioServer
        self._server: NativeServer | GrpcioServer = transport(
            sock,
            config,
            credentials,
            [*interceptors, CallInterceptor(self._message_streams, self._calls, config.elsewhere)],
            self._calls,
        )

    @property
    def address(self) -> str:
        """Where it listens, `host:port`, with the real port."""
        return self._address

    @property
    def listener(self) -> socket.socket:
        """The socket that holds the address; over grpcio another one listens there."""
        return self._listener

    @property
    def transport(self) -> str:
        """What carries it: `native` or `grpcio`."""
        return self._config.transport

    @property
    def server_certificate(self) -> bytes:
        """The certificate served now, PEM; empty without TLS."""
        return self._credentials.certificate if self._credentials else b""

    @property
    def tls_enabled(self) -> bool:
        """Whether it serves TLS."""
        return self._config.secure.use_tls

    @property
    def mutual_tls_required(self) -> bool:
        """Whether clients need a certificate of the client roots."""
        return self._config.secure.require_client_certificate

    @property
    def services(self) -> tuple[str, ...]:
        """The full names of the services added so far, sorted."""
        return tuple(sorted(self._services))

    @property
    def client_root_cas(self) -> list[bytes]:
        """The client roots in force, one PEM each."""
        return self._tls().client_root_cas

    def append_client_root_cas(self, roots: Iterable[bytes]) -> None:
        """Trust more client roots, from the next handshake on.

        Raises:
            NoClientRootCertificates: a PEM holds no certificate; nothing is changed.
            CertificateError: a certificate cannot be read; nothing is changed.
            CommError: the server is without TLS.
        """
        self._tls().append_client_root_cas(roots)

    def remove_client_root_cas(self, roots: Iterable[bytes]) -> None:
        """Trust these client roots no more, from the next handshake on; the native transport also
        ends connections whose certificate does not verify any more. Raises as append."""
        self._tls().remove_client_root_cas(roots)

    def set_client_root_cas(self, roots: Iterable[bytes]) -> None:
        """Trust these client roots only; as remove and append together."""
        self._tls().set_client_root_cas(roots)

    def set_revocation_lists(self, lists: Iterable[bytes]) -> None:
        """Refuse the client certificates that these lists name, and end the connections of theirs.

        Raises:
            CertificateError: a list cannot be read, or no client root signed it; nothing is
                changed.
            CommError: the server is without TLS, or its transport is grpcio.
        """
        self._check_revocation()
        self._tls().set_revocation_lists(lists)

    def replace_server_certificate(self, certificate: bytes, key: bytes) -> None:
        """Serve another certificate, from the next handshake on.

        Raises:
            CertificateError: the pair cannot be used; the old one stays.
            CommError: the server is without TLS.
        """
        self._tls().replace_certificate(certificate, key)

    def renew(self, secure: SecureServerConfig) -> None:
        """Put another pair, other client roots and revocation lists in place of all there are.

        Raises:
            CertificateError: one of them cannot be used; nothing is changed.
            CommError: the server is without TLS, or its transport cannot do that.
        """
        if secure.revocation_lists:
            self._check_revocation()
        self._tls().renew(secure)

    def add_generic_rpc_handlers(
        self, handlers: Sequence["grpc.GenericRpcHandler[Any, Any]"]
    ) -> None:
        """Take handlers as grpc.aio.Server does; called by generated code."""
        for handler in handlers:
            if isinstance(handler, grpc.ServiceRpcHandler):
                self._services.add(handler.service_name())
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
    ) -> None:
        """Take handlers as grpc.aio.Server does; called by generated code."""
        self._services.add(service)
        self._server.add_registered_method_handlers(service, handlers)

    def add_message_stream(self, path: str, handler: MessageStreamHandler) -> None:
        """Serve a bidirectional method by the message-stream face.

        Args:
            path: the method, such as `/protos.Events/Chat`.
            handler: runs once for each stream. It returns for OK, or raises StatusError.

        Raises:
            CommError: the path is not `/package.Service/Method`.
        """
        parts = path.split("/")
        if len(parts) != 3 or parts[0] or not parts[1] or not parts[2]:
            raise CommError(f"The method {path!r} is malformed; write /package.Service/Method.")
        self._message_streams.add(path)
        self._services.add(parts[1])
        self._server.add_message_stream(path, handler)

    def set_serving(self, service: str, serving: bool) -> None:
        """Set a service's health; the empty name is the server. All serve from start on
        unless set before."""
        self._health.set(service, serving)

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            AddressError: the held address cannot be listened on.
        """
        health.add_health(self._health, self)
        if self._config.channelz:
            # Not loaded where nobody asks.
            from selvedge_common.comm.channelz import add_channelz

            add_channelz(self)
        reflection.add_reflection({*self._services, *reflection.SERVICES}, self)
        for service in ("", *self._services):
            self._health.set_default(service, True)
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Stop: not serving for health at once, no new calls, the rest cancelled after
        `grace` seconds, and the address is free again."""
        self._health.drain()
        try:
            await self._server.stop(grace)
        finally:
            self._listener.close()

    async def wait_for_termination(self) -> None:
        """Wait until the server has stopped."""
        await self._server.wait_for_termination()

    def _check_revocation(self) -> None:
        if self._config.transport != "native":
            raise CommError(
                "The transport grpcio reads no revocation lists; use native for this listener."
            )

    def _tls(self) -> ServerCredentials:
        if self._credentials is None:
            raise CommError("This server is without TLS; client roots and certificates need it.")
        return self._credentials


def _credentials(config: ServerConfig) -> ServerCredentials | None:
    return ServerCredentials(config.secure) if config.secure.use_tls else None
