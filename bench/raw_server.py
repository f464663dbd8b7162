"""The yardsticks: servers behind the same mTLS that do nothing but answer.

One is nothing but grpc.aio, the other our server on its native transport. Their methods:
  /bench.Raw/Size    unary: how many bytes every message from here has from now on
  /bench.Raw/Answer  unary: answers
  /bench.Raw/Stream  bidirectional: answers each message
  /bench.Raw/Events  bidirectional: sends as many messages as each message says
  /bench.Raw/Transact, /protos.ChaincodeSupport/Register  a chaincode's peer: bare_peer.py
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import uvloop

from bench.bare_peer import BarePeer
from bench.process import standard_input_ends
from bench.wire import EOF

if TYPE_CHECKING:
    from selvedge_common import comm

SERVICE = "bench.Raw"
CHAINCODE_SUPPORT = "protos.ChaincodeSupport"
ADDRESS = "127.0.0.1:0"


class Methods:
    """The methods of both, and the answer that they give."""

    def __init__(self) -> None:
        self._answer = b""
        self.peer = BarePeer()

    def handlers(self) -> dict[str, Any]:
        """The unary ones, by name."""
        return {
            "Size": grpc.unary_unary_rpc_method_handler(self._set_size),
            "Answer": grpc.unary_unary_rpc_method_handler(self._say),
            "Transact": grpc.unary_unary_rpc_method_handler(self.peer.transact),
        }

    async def _set_size(self, request: bytes, _: object) -> bytes:
        self._answer = bytes(int(request))
        return b""

    async def _say(self, request: bytes, _: object) -> bytes:
        return self._answer

    async def answer_each(self, _: object, context: Any) -> None:
        """Stream, on grpc.aio."""
        while await context.read() is not EOF:
            await context.write(self._answer)

    async def answer_messages(self, stream: comm.MessageStream) -> None:
        """Stream, by the message-stream face."""
        await stream.receive(lambda _: stream.send(self._answer))

    async def send_events(self, _: object, context: Any) -> None:
        """Events, on grpc.aio."""
        await context.send_initial_metadata(())
        while (count := await context.read()) is not EOF:
            for _ in range(int(count)):
                await context.write(self._answer)

    async def send_all_events(self, stream: comm.MessageStream) -> None:
        """Events, by the message-stream face."""
        async for count in stream:
            for _ in range(int(count)):
                stream.send(self._answer)
                if stream.full:
                    await stream.drained()


@asynccontextmanager
async def raw(root: bytes, certificate: bytes, key: bytes) -> AsyncIterator[str]:
    """Nothing but grpc.aio; gives its address."""
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=root, require_client_auth=True
    )
    methods = Methods()
    server: Any = grpc.aio.server()
    stream = grpc.stream_stream_rpc_method_handler
    streams = {"Stream": stream(methods.answer_each), "Events": stream(methods.send_events)}
    server.add_registered_method_handlers(SERVICE, methods.handlers() | streams)
    register = {"Register": stream(methods.peer.register)}
    server.add_registered_method_handlers(CHAINCODE_SUPPORT, register)
    port = server.add_secure_port(ADDRESS, credentials)
    await server.start()
    yield f"localhost:{port}"
    await server.stop(None)


@asynccontextmanager
async def native(root: bytes, certificate: bytes, key: bytes) -> AsyncIterator[str]:
    """Our server on its native transport; gives its address."""
    # Here: what nothing but grpc.aio takes is measured too.
    from selvedge_common import comm, logs

    logs.configure("error", "console")
    secure = comm.SecureServerConfig(
        use_tls=True,
        certificate=certificate,
        key=key,
        client_root_cas=(root,),
        require_client_certificate=True,
    )
    methods = Methods()
    server = comm.GRPCServer(ADDRESS, comm.ServerConfig(secure=secure, transport="native"))
    server.add_registered_method_handlers(SERVICE, methods.handlers())
    server.add_message_stream(f"/{SERVICE}/Stream", methods.answer_messages)
    server.add_message_stream(f"/{SERVICE}/Events", methods.send_all_events)
    server.add_message_stream(f"/{CHAINCODE_SUPPORT}/Register", methods.peer.register_stream)
    await server.start()
    yield f"localhost:{server.address.rpartition(':')[2]}"
    await server.stop(0)


KINDS: dict[str, Callable[[bytes, bytes, bytes], AbstractAsyncContextManager[str]]] = {
    "raw": raw,
    "native": native,
}


async def serve(kind: str, folder: Path) -> None:
    """Serve with the certificate of a service's folder until standard input ends.

    Prints the address.
    """
    root, certificate, key = (
        (folder / "tls" / name).read_bytes() for name in ("ca.crt", "server.crt", "server.key")
    )
    async with KINDS[kind](root, certificate, key) as address:
        print(address, flush=True)
        await standard_input_ends()


def main() -> None:
    """Serve, on the event loop that the services use."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m bench.raw_server native .selvedge/event-hub",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path, help="a service's folder, with its tls/")
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.kind, arguments.folder))


if __name__ == "__main__":
    main()
