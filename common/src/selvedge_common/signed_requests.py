"""Requests that carry who asks: an envelope of type PEER_ADMIN_OPERATION, signed.

Follows core/admin/validate.go of Fabric 1.4: form, then time, then who signed. As there a request
is good for as long as its timestamp is within fifteen minutes of the service's clock, and what
repeats it within that time is not told from it, but for what is bound to its connection. Where
Fabric answers "access denied" alone, the status and the sentence here name the cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from selvedge_common.comm import StatusError
from selvedge_common.msp import ADMIN, MSP, Identity, IdentityError
from selvedge_common.msp.policies import SignedData
from selvedge_common.protoutil.errors import MalformedMessage
from selvedge_common.protoutil.wire import Signer, marshal, parse, signed_envelope, timestamp_of
from selvedge_protos.common import common_pb2

M = TypeVar("M", bound=Message)

TIME_WINDOW = 15 * 60.0
"""Seconds that a request's timestamp may be from the service's clock, either way."""


@dataclass(frozen=True, slots=True)
class OpenedRequest:
    """A request whose form and time are sound; who signed it is yet to be judged.

    Attributes:
        data: what is asked for, marshalled.
        signed: the signature, who is said to have made it, and over what.
    """

    data: bytes
    signed: SignedData

    def parse(self, kind: type[M]) -> M:
        """What is asked for. Raises StatusError INVALID_ARGUMENT for data that is not that."""
        try:
            return parse(kind, self.data, "data of the request")
        except MalformedMessage as error:
            raise _malformed(str(error)) from error


@dataclass(frozen=True, slots=True)
class SignedRequest(OpenedRequest):
    """A request that passed.

    Attributes:
        signer: who asks.
    """

    signer: Identity


class SignedRequests:
    """Opens envelopes that members of one organisation signed.

    Args:
        msp: the service's own organisation.
        max_bytes: the largest envelope that is looked at: all of it is hashed, whoever sent it.
        setting: what that bound is called in the settings.
        on_too_large: called for each request beyond it.
        now: the clock, in UTC.
    """

    def __init__(
        self,
        msp: MSP,
        *,
        max_bytes: int,
        setting: str,
        on_too_large: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._msp = msp
        self._max_bytes = max_bytes
        self._setting = setting
        self._on_too_large = on_too_large
        self._now = now

    def read(
        self, envelope: common_pb2.Envelope, *, admin: bool, tls_binding: bytes | None = None
    ) -> SignedRequest:
        """Check a request, and say who asks for what.

        Args:
            envelope: as it came.
            admin: whether an administrator of the organisation has to be who signed.
            tls_binding: see `open_request`.

        Raises:
            StatusError: RESOURCE_EXHAUSTED for one that is too large, INVALID_ARGUMENT for one
                that is no such envelope, UNAUTHENTICATED for its time, identity or signature,
                PERMISSION_DENIED for a member who is no administrator.
        """
        self._check_size(envelope)
        now = self._now()
        opened = open_request(envelope, now, tls_binding=tls_binding)
        signer = self._identify(opened.signed, now)
        if admin and not self._msp.has_role(signer, ADMIN):
            raise StatusError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{signer} is no administrator of {self._msp.mspid}: sign the request as one, with"
                " a certificate that has the OU admin",
            )
        return SignedRequest(opened.data, opened.signed, signer)

    def _check_size(self, envelope: common_pb2.Envelope) -> None:
        size = envelope.ByteSize()
        if size > self._max_bytes:
            self._on_too_large()
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the signed request has {size} bytes, more than the {self._max_bytes} of"
                f" {self._setting}: send a smaller one, or raise the limit",
            )

    def _identify(self, signed: SignedData, now: datetime) -> Identity:
        try:
            signer = self._msp.deserialize(signed.identity)
            self._msp.validate(signer, now)
        except IdentityError as error:
            raise StatusError(
                grpc.StatusCode.UNAUTHENTICATED,
                f"the request is not of a member of {self._msp.mspid}, the organisation of this"
                f" service: {error}",
            ) from error
        try:
            signer.verify(signed.message, signed.signature)
        except IdentityError as error:
            raise StatusError(
                grpc.StatusCode.UNAUTHENTICATED,
                f"the request was not signed by who it names: {error}",
            ) from error
        return signer


def sign_request(
    request: Message, signer: Signer, *, tls_cert_hash: bytes = b""
) -> common_pb2.Envelope:
    """Make the envelope that asks for `request`, stamped now.

    Args:
        tls_cert_hash: SHA-256 of the client certificate of the connection (DER), to bind it to.
    """
    header = common_pb2.ChannelHeader(
        type=common_pb2.PEER_ADMIN_OPERATION,
        timestamp=timestamp_of(),
        tls_cert_hash=tls_cert_hash,
    )
    return signed_envelope(header, marshal(request), signer)


def open_request(
    envelope: common_pb2.Envelope, now: datetime, *, tls_binding: bytes | None = None
) -> OpenedRequest:
    """Check form and time of a request, and no more: the caller judges who signed.

    Args:
        envelope: as it came.
        now: the time, in UTC.
        tls_binding: the `seek.client_certificate_hash` of the connection, which the request must
            repeat; empty, where the client showed no certificate, refuses one that is bound to any.
            None asks for nothing, as Fabric does of administrators' requests.

    Raises:
        StatusError: INVALID_ARGUMENT for one that is no such envelope, UNAUTHENTICATED for one that
            is not signed, its time, or another connection's.
    """
    payload = _open_payload(envelope)
    channel_header = _open_channel_header(payload)
    _check_time(channel_header, now)
    try:
        header = parse(
            common_pb2.SignatureHeader,
            payload.header.signature_header,
            "signature header of the request",
        )
    except MalformedMessage as error:
        raise _malformed(str(error)) from error
    if tls_binding == b"" and channel_header.tls_cert_hash:
        raise StatusError(
            grpc.StatusCode.UNAUTHENTICATED,
            "the request is bound to a TLS client certificate, and its connection shows none: show"
            " that one, or leave tls_cert_hash in the channel header empty",
        )
    if tls_binding is not None and channel_header.tls_cert_hash != tls_binding:
        raise StatusError(
            grpc.StatusCode.UNAUTHENTICATED,
            "the request is not bound to the TLS client certificate of its connection: set"
            " tls_cert_hash in its channel header to the SHA-256 of that certificate",
        )
    return OpenedRequest(
        payload.data, SignedData(envelope.payload, header.creator, envelope.signature)
    )


def _open_payload(envelope: common_pb2.Envelope) -> common_pb2.Payload:
    # Releases 1.0 and 1.1 send Empty and LogLevelRequest by the same methods. Their bytes are those
    # of an envelope, too: a module's name is its payload, and a level its signature.
    if not envelope.signature:
        raise StatusError(
            grpc.StatusCode.UNAUTHENTICATED,
            "the request is not signed: send an envelope of type PEER_ADMIN_OPERATION that is, as"
            " the peer command does from release 1.2 on",
        )
    try:
        payload = parse(common_pb2.Payload, envelope.payload, "payload of the request")
    except MalformedMessage as error:
        raise _malformed(
            f"{error} The peer command signs its requests from release 1.2 on."
        ) from error
    if not payload.HasField("header"):
        raise _malformed(
            "the request has no header: send an envelope of type PEER_ADMIN_OPERATION, as the peer"
            " command does from release 1.2 on"
        )
    return payload


def _open_channel_header(payload: common_pb2.Payload) -> common_pb2.ChannelHeader:
    try:
        header = parse(
            common_pb2.ChannelHeader,
            payload.header.channel_header,
            "channel header of the request",
        )
    except MalformedMessage as error:
        raise _malformed(str(error)) from error
    if header.type != common_pb2.PEER_ADMIN_OPERATION:
        raise _malformed(
            f"the request is of type {_name_of(header.type)}: give its channel header the type"
            " PEER_ADMIN_OPERATION"
        )
    if not header.HasField("timestamp"):
        raise _malformed("the request has no timestamp: set one in its channel header")
    return header


def _check_time(header: common_pb2.ChannelHeader, now: datetime) -> None:
    stamped = header.timestamp.seconds + header.timestamp.nanos / 1e9
    apart = abs(now.timestamp() - stamped)
    if apart > TIME_WINDOW:
        raise StatusError(
            grpc.StatusCode.UNAUTHENTICATED,
            f"the request's timestamp is {apart:.0f} s from the clock of this service, more than"
            f" {TIME_WINDOW:g} s: set the clock right and sign the request anew",
        )


def _name_of(kind: int) -> str:
    if kind in common_pb2.HeaderType.values():
        return common_pb2.HeaderType.Name(common_pb2.HeaderType.ValueType(kind))
    return str(kind)


def _malformed(sentence: str) -> StatusError:
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, sentence)
