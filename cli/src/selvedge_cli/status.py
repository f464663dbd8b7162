"""`selvedge status`: how everything is, or what became of one transaction."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

import click

from selvedge_cli.errors import FAILED, INVALID, PENDING, CommandError, failing_as
from selvedge_cli.options import Settings, common_options
from selvedge_common.quoting import printable

if TYPE_CHECKING:
    from selvedge_cli.commit import Commit
    from selvedge_cli.inspection import Endpoint, HubChannel, Report

EXIT_STATUSES = """\b
Exit status:
  0  all is well; the transaction is valid
  1  something is down, or not well
  3  the transaction is in a block, and is invalid
  4  the transaction is in no block: it still can be committed if it was handed to the ordering

Example: selvedge status --json"""


class Unknown(CommandError):
    """Nobody could be asked."""

    facts = {"up": False}  # noqa: RUF012 - nobody writes into it


def _transaction_id(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    if value is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise click.BadParameter(f"{value!r} is no transaction id: that has 64 hexadecimal digits")
    return value and value.lower()


@click.command(epilog=EXIT_STATUSES)
@click.option("--txid", callback=_transaction_id, help="Look this transaction up instead.")
@click.option(
    "--from",
    "start",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="With --txid: the first block to look at.  [default: 0]",
)
@common_options
def status(settings: Settings, txid: str | None, start: int) -> None:
    """Say how the services are: health, addresses, certificates, and where the channel is.

    With --txid: whether that transaction was committed, and how it was judged.
    """
    from selvedge_cli.connection import Connection, load_user

    with failing_as(Unknown):
        user = load_user(settings)

    async def look() -> int:
        async with Connection(user, settings) as connection:
            if txid is not None:
                from selvedge_cli.commit import look_up

                return _print_commit(
                    txid, *await look_up(connection, txid, start), as_json=settings.as_json
                )
            from selvedge_cli.inspection import inspect

            return _print_report(await inspect(connection), as_json=settings.as_json)

    raise SystemExit(asyncio.run(look()))


def _print_commit(txid: str, commit: Commit | None, last: int, *, as_json: bool) -> int:
    outcome = "pending" if commit is None else "valid" if commit.valid else "invalid"
    if as_json:
        found = {"block": commit and commit.block, "code": commit and commit.code}
        click.echo(json.dumps({"txid": txid, "outcome": outcome, **found, "looked_up_to": last}))
    elif commit is None:
        click.echo(
            f"transaction {txid} is in no block up to {last}: if it was handed to the ordering it "
            "can still be committed"
        )
    else:
        verdict = "" if commit.valid else " and changed nothing"
        click.echo(f"transaction {txid} is in block {commit.block}: {commit.code}{verdict}")
    return {"pending": PENDING, "invalid": INVALID}.get(outcome, 0)


def _print_report(report: Report, *, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(report.record()))
        return 0 if report.up else FAILED
    for service in report.services:
        state = "up" if service.up else "NOT WELL" if service.answers else "DOWN"
        click.echo(f"{service.name}: {state}")
        for endpoint in service.endpoints:
            click.echo(f"  {endpoint.what:<18}  {endpoint.address:<22}  {_state(endpoint)}")
    channel = report.channel
    if channel.error:
        click.echo(f"channel {channel.name}: {channel.error}")
    else:
        click.echo(
            f"channel {channel.name}: height {channel.height}, "
            f"hash of the last block {channel.last_block_hash}"
        )
    for each in report.hub_channels:
        click.echo(f"event hub, channel {each.name}: {_hub_state(each)}")
    if report.chaincodes is not None:
        click.echo(f"chaincodes connected: {report.chaincodes}")
    click.echo(
        f"user {report.user['name']}: identity until {report.user['identity_until'][:10]}, "
        f"TLS certificate until {report.user['tls_until'][:10]}"
    )
    if report.up:
        return 0
    click.echo(f"selvedge: {_what_is_wrong(report)}", err=True)
    return FAILED


def _what_is_wrong(report: Report) -> str:
    """The one thing to see to first, of a report that is not well."""
    if not all(service.answers for service in report.services):
        return (
            "something is down: start it with `selvedge up` or `docker compose up --wait`; its log "
            "says why it stopped"
        )
    unwell = [service.name for service in report.services if not service.up]
    if unwell:
        verb = "run and are" if len(unwell) > 1 else "runs and is"
        return (
            f"{' and '.join(unwell)} {verb} not well: why, and what to do, is said above at "
            "operations, and in the log"
        )
    return report.channel.error


def _hub_state(channel: HubChannel) -> str:
    from selvedge_cli.hub_table import TROUBLE_CHARACTERS

    source = "" if channel.connected else "NO SOURCE, "
    behind = f", {channel.behind} behind its source" if channel.behind else ""
    trouble = f"\n  {printable(channel.trouble, TROUBLE_CHARACTERS)}" if channel.trouble else ""
    return f"{source}height {channel.height}{behind}{trouble}"


def _state(endpoint: Endpoint) -> str:
    if endpoint.error:
        return endpoint.error
    until = endpoint.certificate_until
    return f"serving, certificate until {until[:10]}" if until else "serving"
