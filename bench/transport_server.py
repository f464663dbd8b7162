"""The server whose transport is measured: raw grpc.aio, or our server on one of its transports.

Its methods, which all take and send plain bytes:
  /bench.Transport/Answer    unary: answers with the request
  /bench.Transport/PingPong  bidirectional: sends each message back
  /bench.Transport/Events    bidirectional: sends the first message back, then what is published
  /bench.Transport/Publish   unary: "SIZE SECONDS"; sends events of that size to all consumers for
                             that long, then an empty one to each
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from bench.process import standard_input_ends
from bench.wire import EOF
from selvedge_common import comm, logs

SERVICE = "bench.Transport"
ADDRESS = "127.0.0.1:0"
LOW_MARK = comm.StreamConfig().low_mark
"""Bytes waiting for a consumer from which on the producer waits for it."""


@dataclass(frozen=True)
class Order:
    """What to publish.

    Attributes:
        payload: each event.
        until: when to end, by the clock of the event loop.
    """

    payload: bytes
    until: float

    @classmethod
    def parse(cls, request: bytes) -> Order:
        """Read a request of Publish."""
        size, seconds = request.split()
        return cls(bytes(int(size)), asyncio.get_running_loop().time() + float(seconds))


class RawMethods:
    """The methods by nothing but grpc.aio: a task a stream, which reads and writes in a loop."""

    def __init__(self) -> None:
        self._consumers: set[asyncio.Queue[Order]] = set()
        self._clock = asyncio.get_running_loop().time

    def add_to(self, server: Any) -> None:
        """Register them."""
        server.add_registered_method_handlers(
            SERVICE,
            {
                "Answer": grpc.unary_unary_rpc_method_handler(answer),
                "PingPong": grpc.stream_stream_rpc_method_handler(self._ping_pong),
                "Events": grpc.stream_stream_rpc_method_handler(self._events),
                "Publish": grpc.unary_unary_rpc_method_handler(self._publish),
            },
        )

    async def _ping_pong(self, _: object, context: Any) -> None:
        while (message := await context.read()) is not EOF:
            await context.write(message)

    async def _events(self, _: object, context: Any) -> None:
        orders = asyncio.Queue[Order]()
        self._consumers.add(orders)
        try:
            await context.write(await context.read())
            while True:
                order = await orders.get()
                while self._clock() < order.until:
                    await context.write(order.payload)
                await context.write(b"")
        finally:
            self._consumers.discard(orders)

    async def _publish(self, request: bytes, _: object) -> bytes:
        order = Order.parse(request)
        for orders in self._consumers:
            orders.put_nowait(order)
        return b""


class StreamMethods:
    """The methods by the message-stream face; only the unary ones are ordinary handlers."""

    def __init__(self) -> None:
        self._consumers: set[comm.MessageStream] = set()
        self._clock = asyncio.get_running_loop().time

    def add_to(self, server: comm.GRPCServer) -> None:
        """Register them."""
        server.add_registered_method_handlers(
            SERVICE,
            {
                "Answer": grpc.unary_unary_rpc_method_handler(answer),
                "Publish": grpc.unary_unary_rpc_method_handler(self._publish),
            },
        )
        server.add_message_stream(f"/{SERVICE}/PingPong", self._ping_pong)
        server.add_message_stream(f"/{SERVICE}/Events", self._events)

    async def _ping_pong(self, stream: comm.MessageStream) -> None:
        await stream.receive(stream.send)

    async def _events(self, stream: comm.MessageStream) -> None:
        self._consumers.add(stream)
        try:
            await stream.receive(stream.send)
        finally:
            self._consumers.discard(stream)

    async def _publish(self, request: bytes, _: object) -> bytes:
        order, consumers = Order.parse(request), list(self._consumers)
        while self._clock() < order.until:
            for stream in consumers:
                stream.send(order.payload)
            # One that is behind holds up the others here, which a hub would not let it. All are
            # equally fast, and this bounds what waits.
            for stream in consumers:
                if stream.pending_bytes > LOW_MARK:
                    await stream.drained()
        for stream in consumers:
            stream.send(b"")
        return b""


async def answer(request: bytes, _: object) -> bytes:
    """Answer with the request."""
    return request


async def start_raw(folder: Path, stack: AsyncExitStack) -> list[str]:
    """Serve by nothing but grpc.aio; gives the addresses, plaintext and mTLS."""
    server = grpc.aio.server()
    RawMethods().add_to(server)
    root, certificate, key = _material(folder)
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=root, require_client_auth=True
    )
    ports = server.add_insecure_port(ADDRESS), server.add_secure_port(ADDRESS, credentials)
    await server.start()
    stack.push_async_callback(server.stop, None)
    return [f"127.0.0.1:{port}" for port in ports]


def on(transport: Any) -> Callable[[Path, AsyncExitStack], Awaitable[list[str]]]:
    """What serves by our server on a transport; gives the addresses as start_raw does."""

    async def start(folder: Path, stack: AsyncExitStack) -> list[str]:
        root, certificate, key = _material(folder)
        secure = comm.SecureServerConfig(
            use_tls=True,
            certificate=certificate,
            key=key,
            client_root_cas=(root,),
            require_client_certificate=True,
        )
        methods, addresses = StreamMethods(), []
        for security in (comm.SecureServerConfig(), secure):
            config = comm.ServerConfig(secure=security, transport=transport)
            server = comm.GRPCServer(ADDRESS, config)
            methods.add_to(server)
            await server.start()
            stack.push_async_callback(server.stop, 0)
            addresses.append(server.address)
        return addresses

    return start


STARTS = {"raw": start_raw, "grpcio": on("grpcio"), "native": on("native")}


def _material(folder: Path) -> tuple[bytes, bytes, bytes]:
    root, certificate, key = (
        (folder / name).read_bytes() for name in ("ca.crt", "server.crt", "server.key")
    )
    return root, certificate, key


async def serve(kind: str, folder: Path) -> None:
    """Serve until standard input ends; prints the addresses, plaintext and mTLS."""
    async with AsyncExitStack() as stack:
        print(*await STARTS[kind](folder, stack), flush=True)
        await standard_input_ends()


def main() -> None:
    """Serve, on the event loop that the services use."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m bench.transport_server raw /tmp/certificates",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=STARTS)
    parser.add_argument("folder", type=Path, help="where ca.crt, server.crt and server.key are")
    arguments = parser.parse_args()
    logs.configure("error", "console")
    try:
        uvloop.run(serve(arguments.kind, arguments.folder))
    except (comm.CommError, OSError) as error:
        sys.exit(f"transport_server: {error}")


if __name__ == "__main__":
    main()
