"""The yardstick: a grpc.aio server behind the same mTLS that does nothing but answer.

Its methods say in their path how large the answers are:
  /bench.Raw/answer-SIZE        unary: SIZE bytes
  /bench.Raw/stream-SIZE        bidirectional: SIZE bytes for each message
  /bench.Raw/events-SIZE-COUNT  bidirectional: COUNT messages of SIZE bytes after the first message
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from bench.process import standard_input_ends
from bench.wire import EOF

PREFIX = "/bench.Raw/"


class Raw(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Every method of the prefix."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method."""
        return handler(details.method) if details.method.startswith(PREFIX) else None


@cache
def handler(method: str) -> Any:
    """What answers a method as its name says."""
    kind, size, *count = method.removeprefix(PREFIX).split("-")
    payload = bytes(int(size))

    async def answer(request: bytes, context: Any) -> bytes:
        return payload

    async def stream(requests: object, context: Any) -> None:
        while await context.read() is not EOF:
            await context.write(payload)

    async def events(requests: object, context: Any) -> None:
        await context.send_initial_metadata(())
        await context.read()
        for _ in range(int(count[0])):
            await context.write(payload)

    if kind == "answer":
        return grpc.unary_unary_rpc_method_handler(answer)
    return grpc.stream_stream_rpc_method_handler(stream if kind == "stream" else events)


async def serve(folder: Path) -> None:
    """Serve with the certificate of a service's folder until standard input ends.

    Prints the port.
    """
    root, certificate, key = (
        (folder / "tls" / name).read_bytes() for name in ("ca.crt", "server.crt", "server.key")
    )
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=root, require_client_auth=True
    )
    server = grpc.aio.server(handlers=[Raw()])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(port, flush=True)
    await standard_input_ends()
    await server.stop(None)


def main() -> None:
    """Serve, on the event loop that the services use."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m bench.raw_server .selvedge/event-hub",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a service's folder, with its tls/")
    uvloop.run(serve(parser.parse_args().folder))


if __name__ == "__main__":
    main()
