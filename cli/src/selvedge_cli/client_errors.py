"""What the client package says, as sentences for users of the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import selvedge_client as client
from selvedge_cli.errors import (
    CommandError,
    NoSuchBlock,
    NoSuchChannel,
    NotTrusted,
    not_reachable,
)
from selvedge_cli.options import Settings
from selvedge_client import ClientError


@contextmanager
def told_by_client(settings: Settings) -> Iterator[None]:
    """Have what the client package raises within end the command with a sentence of ours."""
    try:
        yield
    except ClientError as error:
        raise said_by_client(error, settings) from error


def no_such_channel(service: str, address: str, channel: str) -> NoSuchChannel:
    """Make the sentence for a channel that a service does not have."""
    return NoSuchChannel(
        f"{service} at {address} has no channel {channel}: give the name of one that it has with "
        "--channel; `selvedge status` lists those of the event hub"
    )


def said_by_client(error: ClientError, settings: Settings) -> CommandError:
    """Make the sentence for what the client package says, with what a user of ours can do."""

    def service(address: str) -> str:
        return "the event hub" if address == settings.addresses.events else "the peer"

    match error:
        case client.NotReachable():
            return not_reachable(
                service(error.address), error.address, error.why, answered=error.answered
            )
        case client.NotTrusted():
            return NotTrusted(service(error.address), error.address)
        case client.NoSuchChannel():
            return no_such_channel(service(error.address), error.address, settings.channel)
        case client.OtherLedger():
            return CommandError(
                f"{service(error.address)} at {error.address} has another ledger than before: run "
                "this again to go on with that one"
            )
        case client.NoSuchBlock():
            return NoSuchBlock(f"{service(error.address)} at {error.address}: {error.why}")
        case client.BlockUnreadable():
            which = "a block" if error.number is None else f"block {error.number}"
            before = f"; the last one before it is block {error.number - 1}" if error.number else ""
            return CommandError(
                f"{service(error.address)} at {error.address} cannot read {which} of "
                f"{settings.channel}, which is damaged there{before}: `selvedge ledger verify` "
                "says what is wrong, and `selvedge ledger rebuild` mends it while the service is "
                "stopped"
            )
        case client.Refused():
            said = f"{error.address} refused: {error.status}: {error.why}"
            return CommandError(f"{service(error.address)} at {said}")
        case _:
            return CommandError(str(error))
