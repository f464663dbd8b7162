"""Servers and channels: one gRPC server face, live client roots, the message-stream face."""

from selvedge_common.comm.channel import channel
from selvedge_common.comm.configured import Bounds, server_config
from selvedge_common.comm.errors import (
    AddressError,
    CertificateError,
    CommError,
    NoClientRootCertificates,
    StatusError,
)
from selvedge_common.comm.grpcio.dialled import dial_message_stream
from selvedge_common.comm.message_stream import MessageStream, MessageStreamHandler
from selvedge_common.comm.places import Places
from selvedge_common.comm.server import GRPCServer
from selvedge_common.comm.server_certificate import server_uris
from selvedge_common.comm.settings import (
    MESSAGE_COST,
    TRANSPORTS,
    Http2Config,
    KeepaliveConfig,
    SecureServerConfig,
    ServerConfig,
    StreamConfig,
)

__all__ = [
    "MESSAGE_COST",
    "TRANSPORTS",
    "AddressError",
    "Bounds",
    "CertificateError",
    "CommError",
    "GRPCServer",
    "Http2Config",
    "KeepaliveConfig",
    "MessageStream",
    "MessageStreamHandler",
    "NoClientRootCertificates",
    "Places",
    "SecureServerConfig",
    "ServerConfig",
    "StatusError",
    "StreamConfig",
    "channel",
    "dial_message_stream",
    "server_config",
    "server_uris",
]
