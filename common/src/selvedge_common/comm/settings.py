"""What a server is made from. Sizes are bytes, times are seconds, certificates are PEM."""

from dataclasses import dataclass, field
from typing import Literal

from selvedge_common.comm.errors import CommError


@dataclass(frozen=True, slots=True)
class SecureServerConfig:
    """TLS of a server; follows Fabric's core/comm SecureServerConfig.

    Attributes:
        use_tls: serve TLS; without it all other fields are unused.
        certificate: the server's certificate, its intermediates after it.
        key: the certificate's private key.
        server_root_cas: roots by which clients verify this server.
        client_root_cas: roots by which client certificates are verified; replaceable live.
        require_client_certificate: refuse clients without a certificate of those roots.
    """

    use_tls: bool = False
    certificate: bytes = b""
    key: bytes = b""
    server_root_cas: tuple[bytes, ...] = ()
    client_root_cas: tuple[bytes, ...] = ()
    require_client_certificate: bool = False

    def __post_init__(self) -> None:
        if self.require_client_certificate and not self.use_tls:
            raise CommError(
                "Client certificates are required but TLS is off; set use_tls, "
                "or leave require_client_certificate off."
            )


@dataclass(frozen=True, slots=True)
class KeepaliveConfig:
    """HTTP/2 pings. The defaults let every Fabric shim stay connected while idle.

    Attributes:
        interval: silence after which the server pings the client.
        timeout: how long the answer to such a ping may take.
        min_ping_interval: clients may ping this often, also without a stream.
        max_ping_strikes: pings that come too early before the connection is ended; 0 for never.
            Never is the default because clients that measure bandwidth ping after any data.
    """

    interval: float = 60.0
    timeout: float = 20.0
    min_ping_interval: float = 10.0
    max_ping_strikes: int = 0


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Bounds of one message stream, in bytes waiting to be sent unless said otherwise.

    Attributes:
        low_mark: `drained()` returns at or below it.
        high_mark: above it `full` is true.
        max_pending: a stream with more waiting is ended with RESOURCE_EXHAUSTED; each message
            counts 64 bytes more than it holds.
        max_pending_in_process: when more waits in all message streams of the process together,
            the one with the most waiting is ended with RESOURCE_EXHAUSTED. A message that waits
            in several streams counts in each.
        flush_timeout: seconds a closing stream may take to send what is waiting.
    """

    low_mark: int = 64 * 1024
    high_mark: int = 1024 * 1024
    max_pending: int = 256 * 1024 * 1024
    max_pending_in_process: int = 512 * 1024 * 1024
    flush_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A listener: its TLS, its pings and its limits.

    Attributes:
        secure: TLS.
        keepalive: pings.
        max_receive_bytes: largest message taken; a larger one ends its call with
            RESOURCE_EXHAUSTED.
        max_send_bytes: largest message sent; likewise.
        max_concurrent_streams: calls at once on one connection.
        transport: what carries the server.
        stream: bounds of each message stream.
        handshake_timeout: seconds a connection may take to finish its handshake.
    """

    secure: SecureServerConfig = field(default_factory=SecureServerConfig)
    keepalive: KeepaliveConfig = field(default_factory=KeepaliveConfig)
    max_receive_bytes: int = 4 * 1024 * 1024
    max_send_bytes: int = 4 * 1024 * 1024
    max_concurrent_streams: int = 1000
    transport: Literal["grpcio"] = "grpcio"
    stream: StreamConfig = field(default_factory=StreamConfig)
    handshake_timeout: float = 20.0

    def __post_init__(self) -> None:
        if self.transport != "grpcio":
            raise CommError(f"The transport {self.transport!r} is unknown; use grpcio.")


def grpc_options(config: ServerConfig) -> list[tuple[str, int]]:
    """The options of a grpcio server, by gRPC core's own names."""
    keepalive = config.keepalive
    return [
        ("grpc.so_reuseport", 1),  # the address is already held by our own socket
        ("grpc.max_receive_message_length", config.max_receive_bytes),
        ("grpc.max_send_message_length", config.max_send_bytes),
        ("grpc.max_concurrent_streams", config.max_concurrent_streams),
        ("grpc.server_handshake_timeout_ms", _milliseconds(config.handshake_timeout)),
        ("grpc.keepalive_time_ms", _milliseconds(keepalive.interval)),
        # Both: a keepalive ping is a ping first, and those have a minute of their own.
        ("grpc.keepalive_timeout_ms", _milliseconds(keepalive.timeout)),
        ("grpc.http2.ping_timeout_ms", _milliseconds(keepalive.timeout)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            _milliseconds(keepalive.min_ping_interval),
        ),
        ("grpc.http2.max_ping_strikes", keepalive.max_ping_strikes),
    ]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
