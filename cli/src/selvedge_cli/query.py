"""`selvedge query`: what a chaincode answers, with nothing submitted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

import click

from selvedge_cli.chaincode_name import CHAINCODE_NAME
from selvedge_cli.durations import DURATION
from selvedge_cli.invoke import encode, parse_transient
from selvedge_cli.options import Settings, common_options


@click.command(epilog="Example: selvedge query asset-transfer ReadAsset a1")
@click.argument("chaincode", type=CHAINCODE_NAME)
@click.argument("function")
@click.argument("args", nargs=-1)
@click.option("--timeout", type=DURATION, default="30s", show_default=True, help="For the answer.")
@click.option("--transient", multiple=True, metavar="KEY=VALUE", help="Data for its eyes only.")
@common_options
def query(
    settings: Settings,
    chaincode: str,
    function: str,
    args: Sequence[str],
    timeout: float,
    transient: Sequence[str],
) -> None:
    """Call FUNCTION of CHAINCODE with ARGS and print its answer, byte for byte.

    Whatever the function writes is dropped. Exit status 1: it failed, and says why.
    """
    from selvedge_cli.connection import Connection, load_user
    from selvedge_cli.endorsement import Call, Endorsed, endorse
    from selvedge_cli.records import content

    call = Call(chaincode, encode([function, *args]), parse_transient(transient))
    user = load_user(settings)

    async def run() -> Endorsed:
        async with Connection(user, settings) as connection:
            return await endorse(connection, call, timeout)

    endorsed = asyncio.run(run())
    if settings.as_json:
        status = endorsed.response.response.status
        record = {"status": status, "txid": endorsed.txid, **content("payload", endorsed.payload)}
        click.echo(json.dumps(record, ensure_ascii=False))
    else:
        sys.stdout.buffer.write(endorsed.payload + b"\n" * (not endorsed.payload.endswith(b"\n")))
        sys.stdout.flush()
