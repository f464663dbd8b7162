"""What ends a command: a sentence for the user, and an exit status for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click
import grpc.aio

FAILED = 1
"""Nothing was done: refused, not reachable, not enrolled. (2 is a wrong command line.)"""
INVALID = 3
"""The transaction is in a block, and was found invalid there."""
PENDING = 4
"""The transaction was handed to ordering, and no block holds it yet."""


class CommandError(click.ClickException):
    """Ends a command with a sentence on standard error.

    Attributes:
        facts: what `--json` prints beside the sentence.
    """

    exit_code = FAILED
    facts: Mapping[str, object] = {}


class NotReachable(CommandError):
    """A service does not answer at its address, or not now: a later attempt may succeed."""


class NoSuchChannel(CommandError):
    """The server is there, the channel is not."""


class NoSuchBlock(CommandError):
    """The channel is there, the block to begin with does not exist yet."""


class CallRefused(CommandError):
    """A service answered with a status that no second attempt changes.

    Attributes:
        code: the gRPC status.
    """

    def __init__(self, message: str, code: grpc.StatusCode) -> None:
        super().__init__(message)
        self.code = code


class NotTrusted(CommandError):
    """Who answers at a service's address has its certificate from another ca."""

    def __init__(self, service: str, address: str) -> None:
        super().__init__(
            f"{service} at {address} has its certificate from another ca than this user's: run "
            "the command again (admin and user1 are enrolled anew by themselves), get new "
            "certificates with `selvedge ca issue --user NAME`, or choose another --home"
        )


WHAT_TO_DO = "see `selvedge status`, start it with `selvedge up`, or give its address"


@contextmanager
def failing_as(kind: type[CommandError]) -> Iterator[None]:
    """Have a failure within end the command as this kind of error, with its exit status and facts.

    Args:
        kind: takes the sentence alone.
    """
    try:
        yield
    except click.ClickException as failure:
        raise kind(failure.message) from failure


def call_failed(error: grpc.aio.AioRpcError, service: str, address: str) -> CommandError:
    """Make the sentence for a failed call: the service's own where it gave one.

    Args:
        service: what was called, as in "the peer"; its option is named in the sentence.
        address: where.
    """
    from selvedge_client.errors import NO_REASON, UNTRUSTED

    code, details = error.code(), error.details() or NO_REASON
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        said = plain(details)
        if said == UNTRUSTED:
            return NotTrusted(service, address)
        return not_reachable(service, address, said, answered=said == details != NO_REASON)
    return CallRefused(f"{service} at {address} refused: {code.name}: {details}", code)


def not_reachable(service: str, address: str, why: str, *, answered: bool) -> NotReachable:
    """Make the sentence for a service that is away, or said why it cannot serve now."""
    if answered:
        return NotReachable(f"{service} at {address} answered: {why}")
    return NotReachable(f"{service} at {address} does not answer ({why}): {WHAT_TO_DO}")


def plain(details: str) -> str:
    """The details of a call that found nobody, without the core's internals."""
    from selvedge_client.errors import plain

    return plain(details)
