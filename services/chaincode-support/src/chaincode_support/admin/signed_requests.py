"""Requests that carry who asks: an envelope of type PEER_ADMIN_OPERATION, signed.

Follows core/admin/validate.go of Fabric 1.4: form, then time, then who signed. As there a request
is good for as long as its timestamp is within fifteen minutes of the peer's clock, and what repeats
it within that time is not told from it. Where Fabric answers "access denied" alone, the status and
the sentence here name the cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from chaincode_support.admin import metrics
from selvedge_common.comm import StatusError
from selvedge_common.msp import ADMIN, MSP, Identity, IdentityError
from selvedge_common.protoutil.errors import MalformedMessage
from selvedge_common.protoutil.wire import parse
from selvedge_protos.common import common_pb2

M = TypeVar("M", bound=Message)

TIME_WINDOW = 15 * 60.0
"""Seconds that a request's timestamp may be from the peer's clock, either way."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that passed.

    Attributes:
        data: what is asked for, marshalled.
        signer: who asks.
    """

    data: bytes
    signer: Identity

    def parse(self, kind: type[M]) -> M:
        """What is asked for. Raises StatusError INVALID_ARGUMENT for data that is not that."""
        try:
            return parse(kind, self.data, "data of the request")
        except MalformedMessage as error:
            raise _malformed(str(error)) from error


class SignedRequests:
    """Opens envelopes that members of one organisation signed.

    Args:
        msp: the peer's own organisation.
        max_bytes: the largest envelope that is looked at: all of it is hashed, whoever sent it.
        now: the clock, in UTC.
    """

    def __init__(
        self,
        msp: MSP,
        *,
        max_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._msp = msp
        self._max_bytes = max_bytes
        self._now = now

    def read(self, envelope: common_pb2.Envelope, *, admin: bool) -> SignedRequest:
        """Check a request, and say who asks for what.

        Args:
            envelope: as it came.
            admin: whether an administrator of the organisation has to be who signed.

        Raises:
            StatusError: RESOURCE_EXHAUSTED for one that is too large, INVALID_ARGUMENT for one
                that is no such envelope, UNAUTHENTICATED for its time, identity or signature,
                PERMISSION_DENIED for a member who is no administrator.
        """
        self._check_size(envelope)
        payload = _open_payload(envelope)
        self._check_time(_open_channel_header(payload))
        signer = self._identify(payload)
        _check_signature(signer, envelope)
        if admin and not self._msp.has_role(signer, ADMIN):
            raise StatusError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"{signer} is no administrator of {self._msp.mspid}: sign the request as one, with"
                " a certificate that has the OU admin",
            )
        return SignedRequest(payload.data, signer)

    def _check_size(self, envelope: common_pb2.Envelope) -> None:
        size = envelope.ByteSize()
        if size > self._max_bytes:
            metrics.requests_over_limit.inc()
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the signed request has {size} bytes, more than the {self._max_bytes} of"
                " peer.limits.adminRequestBytes: send a smaller one, or raise the limit",
            )

    def _check_time(self, header: common_pb2.ChannelHeader) -> None:
        stamped = header.timestamp.seconds + header.timestamp.nanos / 1e9
        apart = abs(self._now().timestamp() - stamped)
        if apart > TIME_WINDOW:
            raise StatusError(
                grpc.StatusCode.UNAUTHENTICATED,
                f"the request's timestamp is {apart:.0f} s from the clock of the peer, more than"
                f" {TIME_WINDOW:g} s: set the clock right and sign the request anew",
            )

    def _identify(self, payload: common_pb2.Payload) -> Identity:
        try:
            header = parse(
                common_pb2.SignatureHeader,
                payload.header.signature_header,
                "signature header of the request",
            )
            signer = self._msp.deserialize(header.creator)
            self._msp.validate(signer, self._now())
        except MalformedMessage as error:
            raise _malformed(str(error)) from error
        except IdentityError as error:
            raise StatusError(
                grpc.StatusCode.UNAUTHENTICATED,
                f"the request is not of a member of {self._msp.mspid}, the organisation of this"
                f" peer: {error}",
            ) from error
        return signer


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


def _check_signature(signer: Identity, envelope: common_pb2.Envelope) -> None:
    try:
        signer.verify(envelope.payload, envelope.signature)
    except IdentityError as error:
        raise StatusError(
            grpc.StatusCode.UNAUTHENTICATED,
            f"the request was not signed by who it names: {error}",
        ) from error


def _name_of(kind: int) -> str:
    if kind in common_pb2.HeaderType.values():
        return common_pb2.HeaderType.Name(common_pb2.HeaderType.ValueType(kind))
    return str(kind)


def _malformed(sentence: str) -> StatusError:
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, sentence)
