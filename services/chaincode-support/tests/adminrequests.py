"""Signed requests to a peer, as an administrator's tool makes them."""

from datetime import UTC, datetime, timedelta

from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil.wire import signed_envelope, timestamp_of
from selvedge_protos.common import common_pb2

NOW = datetime.now(UTC)


def request(
    signer: SigningIdentity,
    data: bytes = b"",
    *,
    kind: common_pb2.HeaderType.ValueType = common_pb2.PEER_ADMIN_OPERATION,
    stamped: timedelta = timedelta(),
) -> common_pb2.Envelope:
    """A request that was signed this long after NOW."""
    header = common_pb2.ChannelHeader(type=kind, timestamp=timestamp_of(NOW + stamped))
    return signed_envelope(header, data, signer)
