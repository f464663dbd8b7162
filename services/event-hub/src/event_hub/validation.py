"""Whether to believe a consumer's message, checked in the order of Fabric's event hub.

Follows events/producer/handler.go of Fabric 1.0.6, with what 1.1 and 1.2 added before the
membership check: expiry, time window and TLS binding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import grpc
from google.protobuf.message import DecodeError

from event_hub.session import CloseReason, StreamEnded
from selvedge_common.msp import MSP, BadSignature, Identity, IdentityError, parse_identity
from selvedge_common.protoutil.seek import client_certificate_hash
from selvedge_protos.peer import events_pb2

AuthContext = Mapping[str, Sequence[bytes]]


class Refused(StreamEnded):
    """A message that failed a check; its stream ends with this status.

    Args:
        check: the short name of the check, under which the metric counts it.
        code: the gRPC status.
        sentence: what was wrong and what to do about it.
    """

    def __init__(self, check: str, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(CloseReason.MESSAGE_REFUSED, code, sentence)
        self.check = check


@dataclass(frozen=True)
class ValidationConfig:
    """What a message has to satisfy besides its signature.

    Args:
        time_window: seconds a message's timestamp, if it has one, may be from the hub's clock.
        require_tls_binding: refuse a message without ``tls_cert_hash`` where the client has a
            certificate. A hash that is there has to fit in any case.
        certificates_asked: whether clients are asked for a certificate. Where they are not, a hash
            is not looked at, as in Fabric: the client may set it for all its connections.
    """

    time_window: float
    require_tls_binding: bool
    certificates_asked: bool = True


class Checked(NamedTuple):
    """A message that passed.

    Args:
        event: the event in it.
        event_bytes: that event as its creator signed it.
        creator: who signed it.
    """

    event: events_pb2.Event
    event_bytes: bytes
    creator: Identity


class Validator:
    """Checks messages against the organisation that this hub belongs to.

    Args:
        msp: the hub's own organisation.
        config: the other conditions.
        now: the clock, in UTC.
    """

    def __init__(
        self,
        msp: MSP,
        config: ValidationConfig,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._msp = msp
        self._config = config
        self._now = now

    def validate(self, message: bytes, auth: AuthContext) -> Checked:
        """Check a marshalled SignedEvent, and give what is in it.

        Args:
            message: what the consumer sent.
            auth: what the connection's TLS says of the consumer.

        Raises:
            Refused: the message failed a check; the first that fails decides.
        """
        signed, event = _parse_event(message)
        creator = _parse_creator(event)
        self._check_expiry(creator)
        self._check_timestamp(event)
        self._check_tls_binding(event, auth)
        self._check_membership(creator)
        _check_signature(creator, signed)
        return Checked(event, signed.eventBytes, creator)

    def _check_expiry(self, creator: Identity) -> None:
        if self._now() > creator.expires_at:
            raise Refused(
                "expired",
                grpc.StatusCode.UNAUTHENTICATED,
                f"the certificate of the event's creator, {creator}, expired at "
                f"{creator.expires_at.isoformat()}; enrol again and use the new certificate",
            )

    def _check_timestamp(self, event: events_pb2.Event) -> None:
        if not event.HasField("timestamp"):
            return
        sent = event.timestamp.seconds + event.timestamp.nanos / 1e9
        apart = abs(self._now().timestamp() - sent)
        if apart > self._config.time_window:
            raise Refused(
                "timestamp",
                grpc.StatusCode.UNAUTHENTICATED,
                f"the event's timestamp is {apart:.0f} s from the clock of the event hub, more "
                f"than the {self._config.time_window:g} s that peer.events.timewindow allows; "
                "set the client's clock right and sign the event anew",
            )

    def _check_tls_binding(self, event: events_pb2.Event, auth: AuthContext) -> None:
        certificate_hash = client_certificate_hash(auth)
        if not certificate_hash and not self._config.certificates_asked:
            return
        if not event.tls_cert_hash:
            if certificate_hash and self._config.require_tls_binding:
                raise Refused(
                    "tls_binding",
                    grpc.StatusCode.UNAUTHENTICATED,
                    "the event has no tls_cert_hash, and peer.events.requireTlsBinding is on; put "
                    "the SHA-256 hash of the client's TLS certificate (DER) there before signing",
                )
            return
        if not certificate_hash:
            raise Refused(
                "tls_binding",
                grpc.StatusCode.UNAUTHENTICATED,
                "the event has a tls_cert_hash, and this connection shows no TLS client "
                "certificate; show the one that the event was signed for, or leave the hash empty",
            )
        if certificate_hash != event.tls_cert_hash:
            raise Refused(
                "tls_binding",
                grpc.StatusCode.UNAUTHENTICATED,
                "the event's tls_cert_hash is not that of the certificate this connection was made "
                "with; sign the event for the TLS certificate the client connects with",
            )

    def _check_membership(self, creator: Identity) -> None:
        try:
            self._msp.validate(creator, self._now())
        except IdentityError as error:
            raise Refused(
                "membership",
                grpc.StatusCode.PERMISSION_DENIED,
                f"the event's creator is not a member of {self._msp.mspid}, the organisation of "
                f"this event hub: {error}",
            ) from error


def _parse_event(message: bytes) -> tuple[events_pb2.SignedEvent, events_pb2.Event]:
    try:
        signed = events_pb2.SignedEvent.FromString(message)
    except DecodeError as error:
        raise Refused(
            "bytes",
            grpc.StatusCode.INVALID_ARGUMENT,
            "the message is not a protos.SignedEvent; send signed events on this stream",
        ) from error
    try:
        return signed, events_pb2.Event.FromString(signed.eventBytes)
    except DecodeError as error:
        raise Refused(
            "bytes",
            grpc.StatusCode.INVALID_ARGUMENT,
            "the eventBytes of the signed event are not a protos.Event; put a marshalled "
            "protos.Event there",
        ) from error


def _parse_creator(event: events_pb2.Event) -> Identity:
    try:
        return parse_identity(event.creator)
    except IdentityError as error:
        raise Refused(
            "creator",
            grpc.StatusCode.UNAUTHENTICATED,
            f"the event's creator cannot be read: {error}",
        ) from error


def _check_signature(creator: Identity, signed: events_pb2.SignedEvent) -> None:
    try:
        creator.verify(signed.eventBytes, signed.signature)
    except BadSignature as error:
        raise Refused(
            "signature",
            grpc.StatusCode.UNAUTHENTICATED,
            f"the signature is not one of the event's creator over the event's bytes: {error}",
        ) from error
