"""The options that every command takes, and what they say together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from selvedge_cli.addresses import Addresses, load_addresses

DEFAULT_HOME = Path(".selvedge")
CHANNEL = "mychannel"
"""The channel that a peer has where nobody says otherwise."""
MSP_ID = "Org1MSP"
debugging = False
printing_json = False


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
    return _dialling_options(command, "user1")


def administrator_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a command that only an administrator may give."""
    return _dialling_options(command, "admin")


def _dialling_options(command: Callable[..., Any], user: str) -> Callable[..., Any]:
    addresses = [
        _address("--peer", "the peer API", "localhost:7051"),
        _address("--orderer", "the ordering", "localhost:7050"),
        _address("--events", "the event hub", "localhost:7053"),
        _address("--ca", "the certificate authority", "localhost:7055"),
    ]

    def settings(home: Path, user: str, channel: str, as_json: bool, **given: Any) -> Settings:
        return Settings(home, load_addresses(home).overridden(given), user, channel, as_json)

    return _with_options(command, settings, addresses, user)


def local_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a command that runs the services itself: where they are is its own affair."""

    def settings(home: Path, user: str, channel: str, as_json: bool) -> Settings:
        return Settings(home, Addresses(), user, channel, as_json)

    return _with_options(command, settings, [], "user1")


def is_given(context: click.Context, name: str) -> bool:
    """Whether the user has said what a parameter is."""
    source = context.get_parameter_source(name)
    return source not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def given_options(context: click.Context, *left_out: str) -> list[str]:
    """The options that a command was given, as one types them, but for some.

    Args:
        left_out: the names of their parameters.
    """
    words: list[str] = []
    for option in context.command.params:
        name = option.name
        if name not in context.params or name in left_out or not is_given(context, name):
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words += option.opts[:1]
        else:
            for each in value if isinstance(value, tuple) else [value]:
                words += [option.opts[0], str(each)]
    return words


def _with_options(
    command: Callable[..., Any],
    settings: Callable[..., Settings],
    addresses: list[Callable[[Callable[..., Any]], Any]],
    user: str,
) -> Callable[..., Any]:
    @functools.wraps(command)
    def with_settings(**given: Any) -> Any:
        own = ["home", "user", "channel", "as_json"]
        own += [name for name in ("peer", "orderer", "events", "ca") if addresses]
        return command(settings(**{name: given.pop(name) for name in own}), **given)

    options = [
        home_option,
        *addresses,
        click.option(
            "--user",
            envvar="SELVEDGE_USER",
            default=user,
            show_default=True,
            help="Who signs and dials.",
        ),
        click.option(
            "--channel",
            envvar="SELVEDGE_CHANNEL",
            default=CHANNEL,
            show_default=True,
            help="The channel.",
        ),
        json_option,
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


def _set_json(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    # Eager, so that whatever is wrong with the other options is told as JSON, too.
    global printing_json
    printing_json = value
    return value


home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="SELVEDGE_HOME",
    default=DEFAULT_HOME,
    show_default=True,
    help="Folder of certificates and local services.",
)

json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    envvar="SELVEDGE_JSON",
    callback=_set_json,
    help="Print JSON.",
)

debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    envvar="SELVEDGE_DEBUG",
    callback=_set_debugging,
    help="Show where a failure came from.",
)
