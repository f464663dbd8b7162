"""A listener's settings as gRPC core's own options."""

from selvedge_common.comm.settings import ServerConfig


def grpc_options(config: ServerConfig) -> list[tuple[str, int]]:
    """The options of a grpcio server, by gRPC core's own names."""
    keepalive = config.keepalive
    return [
        ("grpc.so_reuseport", 1),  # the address is already held by our own socket
        ("grpc.max_receive_message_length", config.max_receive_bytes),
        ("grpc.max_send_message_length", config.max_send_bytes),
        ("grpc.max_concurrent_streams", config.max_concurrent_streams),
        ("grpc.enable_channelz", int(config.channelz)),
        ("grpc.max_metadata_size", config.http2.max_header_list_bytes),
        # The same: between the two gRPC core refuses by chance.
        ("grpc.absolute_max_metadata_size", config.http2.max_header_list_bytes),
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
