"""The chaincodes, as the peer knows them: who failed, who hangs, who is away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC

import click
import grpc

from selvedge_cli.chaincode_table import ago
from selvedge_cli.chaincodes import list_chaincodes
from selvedge_cli.connection import Connection, read_user
from selvedge_cli.doctor.findings import Finding, error, note, warning
from selvedge_cli.doctor.listener import TIMEOUT
from selvedge_cli.doctor.site import Site
from selvedge_cli.errors import CallRefused
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import Chaincode, Stream


def examine(site: Site) -> Iterator[Finding]:
    """Ask the peer, and look at each of its chaincodes."""
    try:
        known = ask(site)
    except CallRefused as refused:
        found = note if refused.code == grpc.StatusCode.UNIMPLEMENTED else warning
        yield found(
            site.settings.addresses.peer,
            refused.message,
            "until it tells, its chaincodes cannot be examined",
        )
        return
    for chaincode in known or ():
        yield from _conduct(site, chaincode)


def ask(site: Site) -> Sequence[Chaincode] | None:
    """What the peer knows; None where it cannot be asked, which other examinations explain.

    Raises:
        CallRefused: it can, and does not tell.
    """
    if site.pair is None:
        return None
    try:
        return asyncio.run(_ask(site))
    except CallRefused:
        raise
    except click.ClickException:
        return None


async def _ask(site: Site) -> Sequence[Chaincode]:
    async with Connection(read_user(site.user.folder), site.settings) as connection:
        return await list_chaincodes(connection, TIMEOUT)


def _conduct(site: Site, chaincode: Chaincode) -> Iterator[Finding]:
    where = f"chaincode {chaincode.name}"
    for stream in chaincode.streams:
        if stream.state == Stream.UNRESPONSIVE:
            yield error(
                where,
                f"{stream.registered_name} at {stream.peer} let a transaction time out, and has "
                "said nothing since",
                "look at its log, and start it again",
            )
    if not chaincode.streams and chaincode.launcher != Chaincode.SYSTEM:
        yield warning(where, f"it is not connected{_because(chaincode)}", _remedy(chaincode))
    if chaincode.last_error:
        when = ago(chaincode.last_error_at.ToDatetime(UTC), site.now)
        yield warning(
            where, f"its last error was {when} ago: {chaincode.last_error}", "look at its log"
        )


def _because(chaincode: Chaincode) -> str:
    return f": {chaincode.launcher_state}" if chaincode.launcher_state else ""


def _remedy(chaincode: Chaincode) -> str:
    if chaincode.launcher == Chaincode.EXTERNAL:
        return f"start it; `selvedge doctor --chaincode {chaincode.name}` examines its way"
    if chaincode.launcher == Chaincode.SERVICE:
        return "see that it serves at the address in its package; the peer dials it when called"
    return "the peer starts it when it is called; its log says why it ended"
