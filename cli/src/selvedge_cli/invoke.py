"""`selvedge invoke`: submit a transaction and say what became of it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from selvedge_cli.chaincode_name import SUBMITTED_CHAINCODE_NAME
from selvedge_cli.durations import DURATION
from selvedge_cli.errors import failing_as
from selvedge_cli.options import Settings, common_options

if TYPE_CHECKING:
    from selvedge_cli.submission import Submission

EXIT_STATUSES = """\b
Exit status:
  0  committed and valid (with --no-wait: ordered)
  1  nothing was submitted
  3  committed but invalid: it changed nothing
  4  handed to the ordering and not committed yet: it still can be

Example: selvedge invoke asset-transfer CreateAsset a1 ada 100"""


@click.command(epilog=EXIT_STATUSES)
@click.argument("chaincode", type=SUBMITTED_CHAINCODE_NAME)
@click.argument("function")
@click.argument("args", nargs=-1)
@click.option(
    "--timeout", type=DURATION, default="30s", show_default=True, help="Until the commit."
)
@click.option("--init", "is_init", is_flag=True, help="Run the chaincode's Init.")
@click.option("--transient", multiple=True, metavar="KEY=VALUE", help="Data kept off the ledger.")
@click.option("--no-wait", is_flag=True, help="Return as soon as it is ordered.")
@common_options
def invoke(
    settings: Settings,
    chaincode: str,
    function: str,
    args: Sequence[str],
    timeout: float,
    is_init: bool,
    transient: Sequence[str],
    no_wait: bool,
) -> None:
    """Submit a transaction that calls FUNCTION of CHAINCODE with ARGS, and wait for its commit.

    When the time is over after it was handed to the ordering, its fate is looked up by its id.
    Arguments that begin with a dash go after a `--`.
    """
    from selvedge_cli.connection import Connection, load_user
    from selvedge_cli.endorsement import Call
    from selvedge_cli.submission import NotSubmitted, submit

    call = Call(chaincode, encode([function, *args]), parse_transient(transient), is_init)
    with failing_as(NotSubmitted):
        user = load_user(settings)

    async def run() -> Submission:
        async with Connection(user, settings) as connection:
            return await submit(connection, call, timeout, wait=not no_wait)

    result = asyncio.run(run())
    _print(result, as_json=settings.as_json)
    raise SystemExit(result.outcome.exit_status)


def encode(args: Sequence[str]) -> list[bytes]:
    """Arguments as the bytes that the shell gave."""
    return [os.fsencode(arg) for arg in args]


def parse_transient(pairs: Sequence[str]) -> dict[str, bytes]:
    """KEY=VALUE pairs as a transient map."""
    for pair in pairs:
        if not pair.partition("=")[1]:
            raise click.BadParameter(
                f"{pair!r} has no '=': give KEY=VALUE", param_hint="--transient"
            )
    return {key: os.fsencode(value) for key, _, value in (pair.partition("=") for pair in pairs)}


def _print(result: Submission, *, as_json: bool) -> None:
    from selvedge_cli.records import content

    record = {
        "txid": result.txid,
        "outcome": result.outcome.value,
        "block": result.commit and result.commit.block,
        "code": result.commit and result.commit.code,
        **content("payload", result.payload),
    }
    if as_json:
        click.echo(json.dumps(record, ensure_ascii=False))
    else:
        if result.payload:
            click.echo(f"payload  {record.get('payload', record.get('payload_base64'))}")
        click.echo(f"txid     {result.txid}")
        if result.commit:
            click.echo(f"block    {result.commit.block}")
            click.echo(f"code     {result.commit.code}")
    if result.conclusion:
        click.echo(f"selvedge: {result.conclusion}", err=True)
