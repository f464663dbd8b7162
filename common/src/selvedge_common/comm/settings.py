"""What a server is made from. Sizes are bytes, times are seconds, certificates are PEM."""

from collections.abc import Mapping
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
        request_client_certificate: ask clients for a certificate even where none is required; one
            that is given is verified. Native transport only.
        revocation_lists: client certificates named in one of these are refused; each is signed by
            a client root. Native transport only.
    """

    use_tls: bool = False
    certificate: bytes = b""
    key: bytes = b""
    server_root_cas: tuple[bytes, ...] = ()
    client_root_cas: tuple[bytes, ...] = ()
    require_client_certificate: bool = False
    request_client_certificate: bool = False
    revocation_lists: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        for name in ("require_client_certificate", "request_client_certificate"):
            if getattr(self, name) and not self.use_tls:
                raise CommError(
                    f"Client certificates need TLS, which is off; set use_tls, or leave {name} off."
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
class Http2Config:
    """Bounds of the connections of a listener; the native transport's, but for the first.

    Attributes:
        max_header_list_bytes: what the headers of a call may take, each field counting 32 bytes
            more than it holds; more ends the call with RESOURCE_EXHAUSTED, and more than four
            times as much the connection.
        max_connections: at once, those in their handshake included; a further one is closed.
        receive_window: bytes that a client may send on one stream ahead of its handler.
        max_receiving_in_process: bytes of messages that are not whole or not taken yet, and of the
            headers of calls that run, of all connections of the process; above it, the stream with
            the most on the connection with the most is ended with RESOURCE_EXHAUSTED. A waiting
            message counts 64 bytes more than it holds.
        max_pending: bytes that wait to be sent on one connection; above it, the stream with the
            most is ended with RESOURCE_EXHAUSTED.
        max_pending_in_process: the same of all connections; above it, those of the connection with
            the most are ended, the largest first.
        max_unread_bytes: answers beside messages (acknowledgements, headers, statuses) that a
            client may leave unread; more end its connection.
        overhead_bytes: frames that carry no messages, each counting 41 bytes beside its payload,
            beyond what messages earn: at once, and again each minute. More end the connection.
        resets: calls that a client may cancel before they were answered, or that its errors end,
            beyond those that ran to their end: at once, and a tenth of that again each second. More
            end the connection.
    """

    max_header_list_bytes: int = 16 * 1024
    max_connections: int = 10_000
    receive_window: int = 1024 * 1024
    max_receiving_in_process: int = 512 * 1024 * 1024
    max_pending: int = 512 * 1024 * 1024
    max_pending_in_process: int = 1024 * 1024 * 1024
    max_unread_bytes: int = 1024 * 1024
    overhead_bytes: int = 1024 * 1024
    resets: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= self.receive_window < 2**31:
            raise CommError("The receive window is from 1 byte to 2 GiB less one byte.")


MESSAGE_COST = 64
"""Bytes that a message which waits counts beside those it holds, so that a bound on bytes also
holds for empty ones."""
TRANSPORTS = ("native", "grpcio")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A listener: its TLS, its pings and its limits.

    Attributes:
        secure: TLS.
        keepalive: pings.
        max_receive_bytes: largest message taken; a larger one ends its call with
            RESOURCE_EXHAUSTED.
        max_send_bytes: largest message sent; likewise.
        receive_setting, send_setting: what to raise for larger ones, as a sentence names it.
        elsewhere: services that clients may look for here, and where they are.
        max_concurrent_streams: calls at once on one connection.
        transport: what carries the server: `native`, or `grpcio`, the reference.
        stream: bounds of each message stream.
        handshake_timeout: seconds a connection may take for its TLS handshake, then for HTTP/2's,
            and for the headers of a call.
        channelz: serve grpc.channelz.v1, which tells its clients of each other.
        http2: bounds of connections.
    """

    secure: SecureServerConfig = field(default_factory=SecureServerConfig)
    keepalive: KeepaliveConfig = field(default_factory=KeepaliveConfig)
    max_receive_bytes: int = 4 * 1024 * 1024
    max_send_bytes: int = 4 * 1024 * 1024
    receive_setting: str = "the limit"
    send_setting: str = "the limit"
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    max_concurrent_streams: int = 1000
    transport: Literal["native", "grpcio"] = "native"
    stream: StreamConfig = field(default_factory=StreamConfig)
    handshake_timeout: float = 20.0
    channelz: bool = False
    http2: Http2Config = field(default_factory=Http2Config)

    def __post_init__(self) -> None:
        if self.transport not in TRANSPORTS:
            raise CommError(
                f"The transport {self.transport!r} is unknown; use {' or '.join(TRANSPORTS)}."
            )
        if self.transport == "native":
            return
        if self.secure.request_client_certificate and not self.secure.require_client_certificate:
            raise CommError(
                "The transport grpcio cannot ask for a client certificate that is not required; "
                "use native, or require it."
            )
        if self.secure.revocation_lists:
            raise CommError(
                "The transport grpcio reads no revocation lists; use native, or give none."
            )
