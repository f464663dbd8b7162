"""Servers by the sections that the services' configurations have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from selvedge_common.comm.settings import (
    Http2Config,
    KeepaliveConfig,
    SecureServerConfig,
    ServerConfig,
    StreamConfig,
)
from selvedge_common.config.sections import Keepalive, ListenerTransport, Transport

_DEFAULT_KEEPALIVE = KeepaliveConfig()


@dataclass(frozen=True)
class Bounds:
    """What a listener takes, by settings of its own.

    Attributes:
        max_receive_bytes, max_send_bytes: the largest messages.
        receive_setting, send_setting: the settings that say so.
        max_concurrent_streams: calls at once on one connection.
        stream: of each message stream.
    """

    max_receive_bytes: int
    max_send_bytes: int
    receive_setting: str
    send_setting: str
    max_concurrent_streams: int
    stream: StreamConfig = field(default_factory=StreamConfig)


def server_config(
    transport: Transport,
    secure: SecureServerConfig,
    bounds: Bounds,
    *,
    keepalive: Keepalive | None = None,
    elsewhere: Mapping[str, str] | None = None,
    kind: ListenerTransport = "inherit",
) -> ServerConfig:
    """The settings of one listener.

    Args:
        transport: the section of that name.
        secure: TLS.
        bounds: the listener's own.
        keepalive: the section of that name, where there is one.
        elsewhere: services that clients may look for here, and where they are.
        kind: the transport of this listener, or `inherit`, which is that of the section.

    Raises:
        CommError: TLS is to do what the transport cannot.
    """
    return ServerConfig(
        secure=secure,
        keepalive=_DEFAULT_KEEPALIVE
        if keepalive is None
        else KeepaliveConfig(
            interval=keepalive.interval,
            timeout=keepalive.timeout,
            min_ping_interval=keepalive.min_interval,
            max_ping_strikes=keepalive.max_strikes,
        ),
        max_receive_bytes=bounds.max_receive_bytes,
        max_send_bytes=bounds.max_send_bytes,
        receive_setting=bounds.receive_setting,
        send_setting=bounds.send_setting,
        elsewhere=elsewhere or {},
        max_concurrent_streams=bounds.max_concurrent_streams,
        stream=bounds.stream,
        transport=transport.kind if kind == "inherit" else kind,
        handshake_timeout=transport.handshake_timeout,
        channelz=transport.channelz,
        http2=Http2Config(
            max_header_list_bytes=transport.max_header_list_size,
            max_connections=transport.max_connections,
            receive_window=transport.receive_window,
            max_receiving_in_process=transport.receiving_bytes,
            max_pending=transport.pending_bytes,
            max_pending_in_process=transport.total_pending_bytes,
            max_unread_bytes=transport.unread_bytes,
            overhead_bytes=transport.overhead_bytes,
            resets=transport.resets,
        ),
    )
