"""A Deliver request: which blocks of which channel somebody wants, and what that means.

Follows Fabric 2.5's common/deliver/deliver.go and common/ledger/blockledger/fileledger/impl.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from selvedge_common.msp.policies import SignedData
from selvedge_common.protoutil.errors import MalformedMessage, MalformedSeek
from selvedge_common.protoutil.wire import (
    Signer,
    marshal,
    parse,
    signed_envelope,
    timestamp_of,
)
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2

OLDEST = ab_pb2.SeekPosition(oldest=ab_pb2.SeekOldest())
NEWEST = ab_pb2.SeekPosition(newest=ab_pb2.SeekNewest())
NEXT_COMMIT = ab_pb2.SeekPosition(next_commit=ab_pb2.SeekNextCommit())
FOREVER = 2**64 - 1

Position: TypeAlias = ab_pb2.SeekPosition | int
Behavior: TypeAlias = ab_pb2.SeekInfo.SeekBehavior.ValueType
Status: TypeAlias = common_pb2.Status.ValueType


@dataclass(frozen=True)
class OpenedSeek:
    """A Deliver request whose form is sound.

    Attributes:
        envelope: the envelope as it came.
        channel_header, signature_header: its headers.
        seek: the range of blocks asked for; start and stop are set.
    """

    envelope: common_pb2.Envelope
    channel_header: common_pb2.ChannelHeader
    signature_header: common_pb2.SignatureHeader
    seek: ab_pb2.SeekInfo

    @property
    def channel(self) -> str:
        """The channel's name."""
        return self.channel_header.channel_id

    def signed_data(self) -> SignedData:
        """Give the client's signature over what it covers."""
        return SignedData(
            self.envelope.payload, self.signature_header.creator, self.envelope.signature
        )


@dataclass(frozen=True)
class BlockRange:
    """The numbers of the first and the last block to send, both inclusive."""

    start: int
    stop: int


class SeekRefused(Exception):
    """A sound request that cannot be answered.

    Attributes:
        status: the status that Fabric answers it with.
    """

    def __init__(self, status: Status, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def seek_envelope(
    channel: str,
    start: Position,
    stop: Position,
    behavior: Behavior,
    signer: Signer,
    tls_cert_hash: bytes | None = None,
) -> common_pb2.Envelope:
    """Make the signed request for the blocks from `start` to `stop`.

    Args:
        start, stop: OLDEST, NEWEST, NEXT_COMMIT or a number; FOREVER as stop never ends.
        behavior: SeekInfo.BLOCK_UNTIL_READY or FAIL_IF_NOT_READY.
        tls_cert_hash: SHA-256 of the client certificate's DER form, for servers that want it.
    """
    header = common_pb2.ChannelHeader(
        type=common_pb2.DELIVER_SEEK_INFO,
        timestamp=timestamp_of(),
        channel_id=channel,
        tls_cert_hash=tls_cert_hash or b"",
    )
    seek = ab_pb2.SeekInfo(start=_position(start), stop=_position(stop), behavior=behavior)
    return signed_envelope(header, marshal(seek), signer)


def open_seek(envelope: common_pb2.Envelope | bytes) -> OpenedSeek:
    """Open a Deliver request and check its form. Raises MalformedSeek."""
    try:
        if isinstance(envelope, bytes):
            envelope = parse(common_pb2.Envelope, envelope, "envelope of the Deliver request")
        payload = parse(common_pb2.Payload, envelope.payload, "payload of the Deliver request")
        channel_header = parse(
            common_pb2.ChannelHeader,
            payload.header.channel_header,
            "channel header of the Deliver request",
        )
        signature_header = parse(
            common_pb2.SignatureHeader,
            payload.header.signature_header,
            "signature header of the Deliver request",
        )
        seek = parse(ab_pb2.SeekInfo, payload.data, "seek in the Deliver request")
    except MalformedMessage as error:
        raise MalformedSeek(str(error)) from error
    if not payload.HasField("header"):
        raise MalformedSeek("The Deliver request has no header: set channel and signature header.")
    if not channel_header.HasField("timestamp"):
        raise MalformedSeek("The Deliver request has no timestamp: set one in its channel header.")
    for name, position in (("start", seek.start), ("stop", seek.stop)):
        if position.WhichOneof("Type") is None:
            raise MalformedSeek(
                f"The Deliver request has no {name} position:"
                " set oldest, newest, next_commit or a number."
            )
    return OpenedSeek(envelope, channel_header, signature_header, seek)


def resolve(seek: ab_pb2.SeekInfo, height: int) -> BlockRange:
    """Say which blocks `seek` means on a chain of `height` blocks.

    Raises SeekRefused: BAD_REQUEST where the stop lies before the start, NOT_FOUND where the start
    lies beyond the next block, or is not there yet and the client does not want to wait.
    """
    start = _resolve_start(seek.start, height)
    stop = _resolve_stop(seek, start, height)
    if seek.stop.HasField("specified") and stop < start:
        raise _backwards(start, stop)
    waits = seek.behavior != ab_pb2.SeekInfo.FAIL_IF_NOT_READY
    if start > height or (start == height and not waits):
        raise SeekRefused(
            common_pb2.NOT_FOUND,
            f"The Deliver request starts at block {start} and the newest block is {height - 1}:"
            " start with an existing block, or wait for the next one.",
        )
    if stop < start:
        raise _backwards(start, stop)
    return BlockRange(start, stop)


def _position(position: Position) -> ab_pb2.SeekPosition:
    if isinstance(position, int):
        return ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=position))
    return position


def _resolve_start(position: ab_pb2.SeekPosition, height: int) -> int:
    kind = position.WhichOneof("Type")
    if kind == "specified":
        return position.specified.number
    if kind == "newest":
        return max(height - 1, 0)
    return height if kind == "next_commit" else 0


def _resolve_stop(seek: ab_pb2.SeekInfo, start: int, height: int) -> int:
    kind = seek.stop.WhichOneof("Type")
    if kind == "specified":
        return seek.stop.specified.number
    # The oldest that can be sent is the first one sent; so the stop "oldest" means one block.
    if kind == "oldest" or seek.stop == seek.start:
        return start
    return height - 1 if kind == "newest" else height


def _backwards(start: int, stop: int) -> SeekRefused:
    return SeekRefused(
        common_pb2.BAD_REQUEST,
        f"The Deliver request starts at block {start} and stops at {stop}:"
        " let it stop where it starts or later.",
    )
