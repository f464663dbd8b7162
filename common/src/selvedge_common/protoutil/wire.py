"""The smallest pieces: parse without surprises, frame without parsing, stamp and hash."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from selvedge_common.protoutil.errors import MalformedMessage
from selvedge_protos.common import common_pb2

NONCE_BYTES = 24

_M = TypeVar("_M", bound=Message)


class Signer(Protocol):
    """Who signs: msp.SigningIdentity, or what looks like it."""

    @property
    def serialized(self) -> bytes:
        """The marshalled SerializedIdentity of the signer."""

    def sign(self, message: bytes) -> bytes:
        """Give the signature (DER) over `message`."""


def parse(kind: type[_M], data: bytes, what: str) -> _M:
    """Parse `data` as a message of type `kind`; `what` names it in the sentence.

    Raises MalformedMessage, never protobuf's own errors.
    """
    try:
        return kind.FromString(data)
    except (DecodeError, RecursionError) as error:
        raise MalformedMessage(
            f"The {what} is not a marshalled {kind.DESCRIPTOR.full_name}: marshal it anew."
        ) from error


def marshal(message: Message) -> bytes:
    """Marshal with map entries in order, so that equal messages have equal bytes."""
    return message.SerializeToString(deterministic=True)


def length_delimited(field: int, data: bytes) -> bytes:
    """Frame marshalled `data` as the field number `field` of an outer message, unparsed."""
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def new_nonce() -> bytes:
    """Give 24 random bytes, as many as Fabric's clients use."""
    return secrets.token_bytes(NONCE_BYTES)


def timestamp_of(moment: datetime | None = None) -> Timestamp:
    """Give `moment` (default: now) as a protobuf timestamp."""
    timestamp = Timestamp()
    timestamp.FromDatetime((moment if moment is not None else datetime.now(UTC)).astimezone(UTC))
    return timestamp


def transaction_id(nonce: bytes, creator: bytes) -> str:
    """Give the id of a transaction: hex of the SHA-256 over nonce and creator."""
    return hashlib.sha256(nonce + creator).hexdigest()


def signed_envelope(
    channel_header: common_pb2.ChannelHeader, data: bytes, signer: Signer
) -> common_pb2.Envelope:
    """Wrap `data` under the header, with a fresh nonce, signed by `signer`."""
    signature_header = common_pb2.SignatureHeader(creator=signer.serialized, nonce=new_nonce())
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=marshal(channel_header), signature_header=marshal(signature_header)
        ),
        data=data,
    )
    signed = marshal(payload)
    return common_pb2.Envelope(payload=signed, signature=signer.sign(signed))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
