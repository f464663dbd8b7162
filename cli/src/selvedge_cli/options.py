"""The options that every command takes, and what they say together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from selvedge_cli.addresses import Addresses, load_addresses

DEFAULT_HOME = Path(".selvedge")
MSP_ID = "Org1MSP"
debugging = False


@dataclass(frozen=True)
class Settings:
    """Who asks whom.

    Attributes:
        home: folder of certificates, checkpoints and local services.
        addresses: where the services answer.
        user: whose identity signs and dials.
        channel: the channel.
        as_json: print one JSON object a line instead of lines for people.
    """

    home: Path
    addresses: Addresses
    user: str
    channel: str
    as_json: bool


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the common options; it gets them as its first argument, a `Settings`."""

    @functools.wraps(command)
    def with_settings(home: Path, user: str, channel: str, as_json: bool, **rest: Any) -> Any:
        given = {name: rest.pop(name) for name in ("peer", "orderer", "events", "ca")}
        addresses = load_addresses(home).overridden(given)
        return command(Settings(home, addresses, user, channel, as_json), **rest)

    options = [
        click.option(
            "--home",
            type=click.Path(path_type=Path, file_okay=False),
            envvar="SELVEDGE_HOME",
            default=DEFAULT_HOME,
            show_default=True,
            help="Folder of certificates and local services.",
        ),
        _address("--peer", "the peer API", "localhost:7051"),
        _address("--orderer", "the ordering", "localhost:7050"),
        _address("--events", "the event hub", "localhost:7053"),
        _address("--ca", "the certificate authority", "localhost:7055"),
        click.option(
            "--user",
            envvar="SELVEDGE_USER",
            default="user1",
            show_default=True,
            help="Who signs and dials.",
        ),
        click.option(
            "--channel",
            envvar="SELVEDGE_CHANNEL",
            default="mychannel",
            show_default=True,
            help="The channel.",
        ),
        click.option("--json", "as_json", envvar="SELVEDGE_JSON", is_flag=True, help="Print JSON."),
        debug_option,
    ]
    wrapped: Callable[..., Any] = with_settings
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def _address(name: str, what: str, default: str) -> Callable[[Callable[..., Any]], Any]:
    # The default is not click's: `selvedge up` may have left other addresses in the home.
    return click.option(name, metavar="HOST:PORT", help=f"Address of {what}.  [default: {default}]")


def _set_debugging(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    global debugging
    debugging = debugging or value


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    envvar="SELVEDGE_DEBUG",
    callback=_set_debugging,
    help="Show where a failure came from.",
)
