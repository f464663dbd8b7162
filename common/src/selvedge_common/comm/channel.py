"""Client channels."""

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from selvedge_common.comm.errors import CommError

MAX_BYTES = 100 * 1024 * 1024
# Fabric's peers take pings at least 60 s apart and end connections that ping more often.
_PING_INTERVAL_MS = 60_000
_PING_TIMEOUT_MS = 20_000


def channel(
    address: str,
    *,
    root_cas: bytes | Sequence[bytes] | None,
    certificate: bytes | None = None,
    key: bytes | None = None,
    max_bytes: int = MAX_BYTES,
    server_name: str | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.aio.Channel:
    """Open a channel to `address` (`host:port`), kept alive by pings.

    Args:
        root_cas: roots that verify the server, PEM; None for plaintext.
        certificate: the client's certificate, PEM, if the server wants one.
        key: its private key, PEM.
        max_bytes: largest message either way.
        server_name: the name to find in the server's certificate, if not the address's host.
        options: further options of grpcio, taking precedence.

    Raises:
        CommError: the address is missing, or a certificate without key or the reverse.
    """
    if not address:
        raise CommError("Missing address parameter")
    if (certificate is None) != (key is None):
        raise CommError("A client certificate and its key go together; give both or neither.")
    arguments = {
        # Of its own: gRPC lets channels share a connection that was made with another certificate.
        "grpc.use_local_subchannel_pool": 1,
        "grpc.max_receive_message_length": max_bytes,
        "grpc.max_send_message_length": max_bytes,
        "grpc.keepalive_time_ms": _PING_INTERVAL_MS,
        "grpc.keepalive_timeout_ms": _PING_TIMEOUT_MS,
        "grpc.http2.ping_timeout_ms": _PING_TIMEOUT_MS,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
    }
    if server_name is not None:
        arguments["grpc.ssl_target_name_override"] = server_name  # type: ignore[assignment]
    arguments.update(options)
    if root_cas is None:
        if certificate is not None:
            raise CommError("A client certificate needs TLS; give the server's root_cas.")
        return grpc.aio.insecure_channel(address, options=list(arguments.items()))
    roots = root_cas if isinstance(root_cas, bytes) else b"".join(root_cas)
    credentials = grpc.ssl_channel_credentials(roots, key, certificate)
    return grpc.aio.secure_channel(address, credentials, options=list(arguments.items()))
