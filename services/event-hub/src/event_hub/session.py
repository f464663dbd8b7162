"""One open stream of a consumer, whichever service it came to, and why such streams end."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

import grpc
from cryptography.x509.oid import NameOID

from selvedge_common.comm import MessageStream, StatusError
from selvedge_common.logs import get_logger
from selvedge_common.msp import Identity
from selvedge_common.quoting import printable

log = get_logger("eventhub.session")


class Service(StrEnum):
    """What a stream is of."""

    CHAT = "CHAT"
    DELIVER = "DELIVER"
    SUBSCRIBE = "SUBSCRIBE"


class CloseReason(StrEnum):
    """Why a stream ended; shown in its status, the log, the metric and what is watched."""

    # The client's doing.
    HALF_CLOSED = "HALF_CLOSED"
    CLIENT_GONE = "CLIENT_GONE"
    # All that it asked for was told.
    # What it sent or asked for cannot be.
    NO_REQUEST = "NO_REQUEST"
    MESSAGE_REFUSED = "MESSAGE_REFUSED"
    START_BLOCK_MALFORMED = "START_BLOCK_MALFORMED"
    CHANNEL_UNKNOWN = "CHANNEL_UNKNOWN"
    CHANNEL_FORBIDDEN = "CHANNEL_FORBIDDEN"
    NOT_VALIDATED = "NOT_VALIDATED"
    OTHER_LEDGER = "OTHER_LEDGER"
    HUB_BEHIND = "HUB_BEHIND"
    BLOCK_UNAVAILABLE = "BLOCK_UNAVAILABLE"
    # A bound.
    TOO_MANY_INTERESTS = "TOO_MANY_INTERESTS"
    TOO_MANY_CONSUMERS = "TOO_MANY_CONSUMERS"
    SLOW_CONSUMER = "SLOW_CONSUMER"
    SEND_TIMEOUT = "SEND_TIMEOUT"
    EVENT_TOO_LARGE = "EVENT_TOO_LARGE"
    TRANSPORT_BOUND = "TRANSPORT_BOUND"
    EXPIRED = "EXPIRED"
    # The hub's doing.
    HUB_FAULT = "HUB_FAULT"
    SHUTTING_DOWN = "SHUTTING_DOWN"


class StreamEnded(StatusError):
    """Ends a stream for a reason, and says so in its status.

    Args:
        reason: why.
        code: the gRPC status.
        sentence: what was wrong and what to do about it.
    """

    def __init__(self, reason: CloseReason, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(code, f"{reason}: {sentence}")
        self.reason = reason
        self.sentence = sentence


class Session:
    """A stream as `Consumers` knows it from `join` to `leave`, and as operators are shown it.

    The service that has the stream sends on it by the session, which counts, and keeps the session
    up to date. A session can stand for its stream in protoutil.seek.deliver.

    Args:
        service: whose stream it is.
        stream: the stream.

    Attributes:
        since: when it came (UTC).
        closed: why it ended, once that is decided here.
        identity: who signed last, in words; empty until somebody has.
        expires_at: when that identity ends (UTC); the stream is closed as EXPIRED then. None where
            nobody has signed yet, or the service ends the stream itself.
        delivered: how many messages were sent, confirmations among them.
        interests: gives what it asked for, in words.
        blocks_behind: gives, by channel, how many blocks it has yet to get where it reads the past.
    """

    def __init__(self, service: Service, stream: MessageStream) -> None:
        self.service = service
        self.stream = stream
        self.since = datetime.now(UTC)
        self.closed: CloseReason | None = None
        self.identity = ""
        self.expires_at: datetime | None = None
        self.delivered = 0
        self.interests: Callable[[], Iterable[str]] = tuple
        self.blocks_behind: Callable[[], Mapping[str, int]] = dict
        self._sent_bytes = 0

    @property
    def peer(self) -> str:
        """The client's address, in gRPC's form."""
        return self.stream.peer

    @property
    def full(self) -> bool:
        """Whether more waits than should, where a sender can wait."""
        return self.stream.full

    @property
    def pending_bytes(self) -> int:
        """Bytes that were sent and the transport has yet to take."""
        return self.stream.pending_bytes

    @property
    def waiting_events(self) -> int:
        """How many messages wait to be sent."""
        return 0

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait for the consumer in all."""
        return self.stream.pending_bytes

    @property
    def taken_bytes(self) -> int:
        """How many bytes the transport took so far; it grows while the consumer makes progress."""
        return self._sent_bytes - self.stream.pending_bytes

    @property
    def idle(self) -> bool:
        """Whether everything was taken by the transport."""
        return not self.stream.pending_bytes

    @property
    def reason(self) -> CloseReason:
        """Why it has ended: where that was not decided here, by the transport or by the client."""
        if self.closed:
            return self.closed
        status = self.stream.status
        if status is not None and status[0] is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return CloseReason.TRANSPORT_BOUND
        return CloseReason.CLIENT_GONE

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The client's messages until it half-closes."""
        return self.stream.__aiter__()

    def send(self, message: bytes) -> None:
        """Send a message; never blocks."""
        self.delivered += 1
        self._sent_bytes += len(message)
        self.stream.send(message)

    async def drained(self) -> None:
        """Return once little of what was sent is pending, or the stream has ended."""
        await self.stream.drained()

    def close(self, reason: CloseReason, code: grpc.StatusCode, sentence: str) -> None:
        """End the stream at once and drop what waits; the first reason given stands."""
        if self.closed:
            return
        waiting = self.waiting_events
        self.closed = reason
        log.warning("consumer closed", reason=reason, peer=self.peer, waiting=waiting)
        self.stream.abort(code, f"{reason}: {sentence}")

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        """End the stream at once: protoutil says so of one that holds up others (Backlog), and of
        one that asks for nothing (seek)."""
        silent = code is grpc.StatusCode.DEADLINE_EXCEEDED
        self.close(CloseReason.NO_REQUEST if silent else CloseReason.SLOW_CONSUMER, code, details)

    def finish(self, reason: CloseReason, code: grpc.StatusCode, sentence: str = "") -> None:
        """End the stream once the consumer has taken all that waits, or had the stream's flush
        timeout for it."""
        if self.closed:
            return
        self.closed = reason
        self.stream.close(code, f"{reason}: {sentence}" if sentence else "")

    def discard(self) -> int:
        """Forget what waits, after the stream has ended; gives how many messages that were."""
        return 0


def words_for(identity: Identity) -> str:
    """Name an identity as operators know it: organisation and common name."""
    names = identity.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = printable(str(names[0].value)) if names else identity.fingerprint[:16]
    return f"{printable(identity.mspid)}/{name}"
