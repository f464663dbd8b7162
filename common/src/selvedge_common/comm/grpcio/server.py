"""The grpcio server: gRPC core's, at an address that another socket holds."""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from selvedge_common.comm import listener
from selvedge_common.comm.calls import Calls
from selvedge_common.comm.credentials import ServerCredentials
from selvedge_common.comm.errors import AddressError
from selvedge_common.comm.grpcio import message_stream
from selvedge_common.comm.grpcio.credentials import GrpcioCredentials
from selvedge_common.comm.grpcio.options import grpc_options
from selvedge_common.comm.message_stream import MessageStreamHandler
from selvedge_common.comm.settings import ServerConfig

_CLEAN_UP = 5.0  # seconds that cancelled handlers may take to end


class GrpcioServer:
    """A grpc.aio.Server on the address of a socket that holds it.

    Args:
        holder: bound to the address, and never listening; see `listener.hold`.
        config: keepalive and bounds.
        credentials: the TLS material; None for plaintext.
        interceptors: grpc.aio's.
        calls: the handlers that run, to be waited for at the end.
    """

    def __init__(
        self,
        holder: socket.socket,
        config: ServerConfig,
        credentials: ServerCredentials | None,
        interceptors: "Sequence[grpc.aio.ServerInterceptor[Any, Any]]",
        calls: Calls,
    ) -> None:
        self._address = listener.name(holder)
        self._config = config
        self._credentials = GrpcioCredentials(credentials) if credentials else None
        self._calls = calls
        self._started = False
        self._server: Any = grpc.aio.server(
            interceptors=list(interceptors), options=grpc_options(config)
        )

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Take handlers as grpc.aio.Server does."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take handlers as grpc.aio.Server does."""
        self._server.add_registered_method_handlers(service, dict(handlers))

    def add_message_stream(self, path: str, handler: MessageStreamHandler) -> None:
        """Serve a method by the message-stream face."""
        _, service, name = path.split("/")
        method = message_stream.method_handler(path, handler, self._config, self._calls)
        self.add_registered_method_handlers(service, {name: method})

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            AddressError: gRPC cannot bind the held address.
        """
        try:
            if self._credentials is None:
                self._server.add_insecure_port(self._address)
            else:
                self._server.add_secure_port(self._address, self._credentials.grpc())
        except RuntimeError as error:
            raise AddressError(f"gRPC cannot listen on {self._address}: {error}.") from error
        await self._server.start()
        self._started = True

    async def stop(self, grace: float) -> None:
        """Take no new calls, and cancel those that still run after `grace` seconds."""
        if self._started:
            await self._server.stop(grace)
            # gRPC leaves as soon as it has cancelled the handlers; they have yet to clean up.
            await self._calls.ended(_CLEAN_UP)

    async def wait_for_termination(self) -> None:
        """Wait until the server has stopped."""
        await self._server.wait_for_termination()
