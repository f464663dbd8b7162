"""What can go wrong, one type for each cause; the text of each is one sentence."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
import grpc.aio

NO_REASON = "no reason given"
# What grpc's core says of a connection that was not made, and what a person wants to know of it.
UNTRUSTED = "its certificate is from another ca"
_CORE_SAYS = {
    "CERTIFICATE_VERIFY_FAILED": UNTRUSTED,
    # Another ca that calls itself the same.
    "certificate signature failure": UNTRUSTED,
    "Connection refused": "connection refused",
    "DNS resolution failed": "its host name is not known",
    "errors resolving": "its host name is not known",
    "No route to host": "no route to it",
    "Network is unreachable": "no route to it",
    "handshake": "it does not speak TLS, or refused our certificate",
    "Socket closed": "it ended the connection",
    "Connection reset": "it ended the connection",
    "Broken pipe": "it ended the connection",
    "GOAWAY": "it ended the connection",
    "Stream removed": "it ended the connection",
    "RST_STREAM": "it ended the stream",
    "keepalive watchdog timeout": "nothing came from it for too long",
    "Deadline Exceeded": "no answer came in time",
    "failed to connect to all addresses": "no connection to it could be made",
}

# With these the core, a transport or the hub ends a call for what became of the connection, of the
# server or of its bounds: of a stream that stood, they do not say that another one is refused.
_BROKEN = (
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
# The same message, or the same request, would end another stream too.
_LASTING = (
    "EVENT_TOO_LARGE",
    "TOO_MANY_INTERESTS",
    "above this listener's limit",
    "larger than max",  # as grpc's core says it
)
# A new stream has a new certificate.
_EXPIRED = "EXPIRED"
# A refusal that is over once somebody leaves.
_FULL = "TOO_MANY_CONSUMERS"


class ClientError(Exception):
    """The root of all that this package raises."""


class NotReachable(ClientError):
    """A server is not there, or cannot answer now: a later attempt may succeed.

    Attributes:
        address: which one.
        why: the cause.
        answered: whether those are the server's own words.
    """

    def __init__(self, address: str, why: str, *, answered: bool = False) -> None:
        said = f"answered: {why}" if answered else f"does not answer ({why})"
        super().__init__(f"{address} {said}")
        self.address = address
        self.why = why
        self.answered = answered


class NotTrusted(ClientError):
    """Whoever answers has its certificate from another ca than the user's.

    Attributes:
        address: where.
    """

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} has its certificate from another ca than this user's: get certificates of "
            "that one's ca, or give another address"
        )
        self.address = address


class Refused(ClientError):
    """A server refused, and would refuse again.

    Attributes:
        address: which one.
        status: the name of the gRPC status, or of the one that Deliver has.
        why: the server's sentence.
    """

    def __init__(self, address: str, status: str, why: str) -> None:
        super().__init__(f"{address} refused: {status}: {why}")
        self.address = address
        self.status = status
        self.why = why


class NoSuchChannel(Refused):
    """The server is there, the channel is not."""


class NoSuchBlock(Refused):
    """The channel is there, the block to begin with does not exist yet."""


class BlockUnreadable(Refused):
    """The server has the block, and cannot give it: what holds it there is damaged.

    Attributes:
        number: the block's, or None for the oldest or newest one.
    """

    def __init__(self, address: str, status: str, channel: str, number: int | None) -> None:
        which = "a block" if number is None else f"block {number}"
        before = f" (the last one before it is block {number - 1})" if number else ""
        super().__init__(
            address, status, f"{which} of {channel}{before} is there and cannot be read"
        )
        self.number = number


class OtherLedger(Refused):
    """The channel's ledger was replaced by another one since the position was told."""


class CheckpointError(ClientError):
    """The file of a checkpoint cannot be read or written."""


class CredentialsError(ClientError):
    """The files by which a user signs and dials cannot be used."""


_KINDS: Mapping[grpc.StatusCode, type[Refused]] = {
    grpc.StatusCode.NOT_FOUND: NoSuchChannel,
    grpc.StatusCode.OUT_OF_RANGE: NoSuchBlock,
    grpc.StatusCode.FAILED_PRECONDITION: OtherLedger,
}


def call_failed(error: grpc.aio.AioRpcError, address: str, *, stood: bool) -> ClientError:
    """Say what a failed call means.

    Args:
        address: where it was made.
        stood: whether it had been accepted before it failed.
    """
    code, details = error.code(), error.details() or NO_REASON
    said = plain(details)
    away = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    if away and said == UNTRUSTED:
        return NotTrusted(address)
    if away or _is_passing(code, details, stood=stood):
        return NotReachable(address, said, answered=said == details != NO_REASON)
    kind = _KINDS.get(code, Refused)
    if kind is OtherLedger and not details.startswith("OTHER_LEDGER"):
        kind = Refused
    return kind(address, code.name, details)


def _is_passing(code: grpc.StatusCode, details: str, *, stood: bool) -> bool:
    """Whether the same call may succeed later, though the server is there."""
    if details.startswith(_FULL) or (stood and details.startswith(_EXPIRED)):
        return True
    if code not in _BROKEN or any(sign in details for sign in _LASTING):
        return False
    # A call that nobody here cancelled was not judged, and neither was one whose connection broke.
    return stood or code is grpc.StatusCode.CANCELLED or plain(details) != details


def plain(details: str) -> str:
    """The details of a call that found nobody, without the core's internals."""
    return next((said for sign, said in _CORE_SAYS.items() if sign in details), details)
