"""The chaincodes, as the peer knows them: who failed, who hangs, who is away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC

import click
import grpc

from selvedge_cli.chaincodes import list_chaincodes
from selvedge_cli.connection import Connection, read_user
from selvedge_cli.doctor.findings import Finding, error, note, warning
from selvedge_cli.doctor.installation import Installation
from selvedge_cli.doctor.listener import TIMEOUT
from selvedge_cli.durations import ago
from selvedge_cli.errors import CallRefused
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import Chaincode, Stream

# How the peer begins to say what a launcher does, where that is not well: after a run that ended it
# pauses before the next. Not so: "to be launched ...", "starting", "superseded by package ...".
_BROKEN, _PAUSING = "broken package", "waiting "


def examine(installation: Installation) -> Iterator[Finding]:
    """Ask the peer, and look at each of its chaincodes."""
    try:
        known = ask(installation)
    except CallRefused as refused:
        found = note if refused.code == grpc.StatusCode.UNIMPLEMENTED else warning
        yield found(
            installation.settings.addresses.peer,
            refused.message,
            "until it tells, its chaincodes cannot be examined",
        )
        return
    for chaincode in known or ():
        yield from _examine(installation, chaincode)


def ask(installation: Installation) -> Sequence[Chaincode] | None:
    """What the peer knows; None where it cannot be asked, which other examinations explain.

    Raises:
        CallRefused: it can, and does not tell.
    """
    if installation.pair is None:
        return None
    try:
        return asyncio.run(_ask(installation))
    except CallRefused:
        raise
    except click.ClickException:
        return None


async def _ask(installation: Installation) -> Sequence[Chaincode]:
    async with Connection(read_user(installation.user.folder), installation.settings) as connection:
        return await list_chaincodes(connection, TIMEOUT)


def _examine(installation: Installation, chaincode: Chaincode) -> Iterator[Finding]:
    where = f"chaincode {chaincode.name}"
    for stream in chaincode.streams:
        if stream.state == Stream.UNRESPONSIVE:
            yield error(
                where,
                f"{stream.registered_name} at {stream.peer} let a transaction time out, and has "
                "said nothing since",
                "look at its log, and start it again",
            )
    if chaincode.launcher_state.startswith(_BROKEN):
        yield warning(
            where, f"it is a {chaincode.launcher_state}", "mend the package, or remove it"
        )
    elif chaincode.launcher == Chaincode.EXTERNAL and not chaincode.streams:
        yield note(
            where,
            "it is not connected any more",
            f"start it if it is still wanted; `selvedge doctor --chaincode {chaincode.name}` "
            "follows it from its shell to the peer",
        )
    else:
        if not chaincode.streams and chaincode.launcher_state.startswith(_PAUSING):
            yield warning(
                where, f"it is not connected: {chaincode.launcher_state}", _remedy(chaincode)
            )
        yield from _last_error(installation, where, chaincode)


def _remedy(chaincode: Chaincode) -> str:
    if chaincode.launcher == Chaincode.SERVICE:
        return "see that it serves at the address in its package"
    return "its log says why it ended"


def _last_error(installation: Installation, where: str, chaincode: Chaincode) -> Iterator[Finding]:
    """What failed last, unless a stream that came later has completed transactions since."""
    if not chaincode.last_error:
        return
    failed_at = chaincode.last_error_at.ToDatetime(UTC)
    later = [each for each in chaincode.streams if each.since.ToDatetime(UTC) > failed_at]
    if any(stream.completed for stream in later):
        return
    # The peer does not tell when a transaction was completed last: only where none ever was, and
    # nobody has started the chaincode again, is this certainly how it stands.
    stands = chaincode.failed and not chaincode.completed and not later
    found = warning if stands and chaincode.launcher != Chaincode.SYSTEM else note
    ago_ = ago(failed_at, installation.now)
    yield found(where, f"its last error was {ago_} ago: {chaincode.last_error}", "look at its log")
