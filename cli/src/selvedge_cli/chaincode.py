"""`selvedge chaincode`: what the peer knows of its chaincodes, and packages for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from selvedge_cli.durations import DURATION
from selvedge_cli.options import Settings, administrator_options, common_options

if TYPE_CHECKING:
    from selvedge_cli.connection import Connection

_Answer = TypeVar("_Answer")

_EXIT_STATUSES = """\b
Exit status:
  0  {done}
  1  {failed}

Example: selvedge chaincode {example}"""

_timeout = click.option(
    "--timeout", type=DURATION, default="30s", show_default=True, help="For the answer."
)


@click.group(epilog="Example: selvedge chaincode list")
def chaincode() -> None:
    """List chaincodes, install and remove packages."""


@chaincode.command(
    "list",
    epilog=_EXIT_STATUSES.format(
        done="they are listed", failed="the peer cannot be asked, and why", example="list"
    ),
)
@_timeout
@common_options
def list_(settings: Settings, timeout: float) -> None:
    """List every chaincode that the peer knows: who serves it, and how it does.

    One that several streams serve, or whose stream is not simply ready, has a line for each of
    them. With --json: one object a line, each a chaincode.
    """
    from datetime import UTC, datetime

    from selvedge_cli.chaincode_table import record, table
    from selvedge_cli.chaincodes import list_chaincodes

    chaincodes = _ask(settings, lambda connection: list_chaincodes(connection, timeout))
    if settings.as_json:
        for each in chaincodes:
            click.echo(json.dumps(record(each), ensure_ascii=False))
    else:
        for line in table(chaincodes, datetime.now(UTC)):
            click.echo(line)


@chaincode.command(
    epilog=_EXIT_STATUSES.format(
        done="the peer has it",
        failed="it is no package, or the peer refused it, and why",
        example="install ./mycc-as-a-service",
    )
)
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@_timeout
@administrator_options
def install(settings: Settings, path: Path, timeout: float) -> None:
    """Give the peer a package of a chaincode that serves, and that the peer dials.

    PATH is a .tar.gz as Fabric's `peer lifecycle chaincode package` makes them for chaincode as a
    service, or a folder with metadata.json ({"type": "ccaas", "label": "mycc"}) and connection.json
    ({"address": "host:9999", ...}), which is packed. Only an administrator may.
    """
    from selvedge_cli.chaincodes import install as install_package
    from selvedge_cli.package import read_package

    package = read_package(path)
    installed = _ask(settings, lambda connection: install_package(connection, package, timeout))
    if settings.as_json:
        click.echo(json.dumps({"package_id": installed.package_id, "name": installed.name}))
        return
    click.echo(f"installed {installed.name} as {installed.package_id}")
    click.echo(
        f"Next: start the chaincode with the id {installed.package_id}, serving at the address in "
        f"its connection.json, and call it: selvedge query {installed.name} FUNCTION ARGUMENT..."
    )


@chaincode.command(
    epilog=_EXIT_STATUSES.format(
        done="the peer has it no more",
        failed="the peer has no such package, or refused, and why",
        example="remove mycc:9f86d081884c7d65...",
    )
)
@click.argument("package_id")
@_timeout
@administrator_options
def remove(settings: Settings, package_id: str, timeout: float) -> None:
    """Take the package PACKAGE_ID from the peer, which finishes what runs and ends its stream.

    `selvedge chaincode list` tells the ids. Only an administrator may.
    """
    from selvedge_cli.chaincodes import remove as remove_package

    _ask(settings, lambda connection: remove_package(connection, package_id, timeout))
    if settings.as_json:
        click.echo(json.dumps({"package_id": package_id}))
    else:
        click.echo(f"removed {package_id}")


def _ask(settings: Settings, question: Callable[[Connection], Awaitable[_Answer]]) -> _Answer:
    from selvedge_cli.connection import Connection, load_user

    user = load_user(settings)

    async def ask() -> _Answer:
        async with Connection(user, settings) as connection:
            return await question(connection)

    return asyncio.run(ask())
