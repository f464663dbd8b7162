"""`selvedge events --consumers`: the event hub and who listens to it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import replace

import click

from selvedge_cli.connection import Connection, load_user
from selvedge_cli.errors import CommandError
from selvedge_cli.hub_table import record, table
from selvedge_cli.hub_watch import watch_hub
from selvedge_cli.options import Settings, is_given
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import HubState

TIMEOUT = 30.0
"""Seconds for the first answer."""
_CONSUMERS = 100
# What may be given beside --consumers: its own options, and those that every command has.
_OWN = {"consumers", "every", "limit"}
_COMMON = {"home", "peer", "orderer", "events", "ca", "user", "channel", "as_json"}
# Lines of a screen that are not consumers: channels, sums and room for a prompt.
_OTHER_LINES = 12


def show_consumers(settings: Settings, every: float | None, limit: int | None) -> None:
    """Print how the hub is, and again and again; on a terminal in the same place.

    The hub tells its administrators alone, so it is asked as admin where the user is not given.

    Args:
        settings: of the command that runs.
        every: seconds between two times; None for once.
        limit: how many consumers to print at most; None for as many as have room.

    Raises:
        click.UsageError: an option was given that chooses among events.
        CommandError: the hub cannot be reached, refused, or went away.
    """
    context = click.get_current_context()
    chosen = [name for name in context.params if is_given(context, name)]
    if others := set(chosen) - _OWN - _COMMON:
        raise click.UsageError(
            f"--consumers shows the hub, and no events: leave {_named(context, others)} out."
        )
    if "user" not in chosen:
        settings = replace(settings, user="admin")
    interval = every or 0.0
    in_place = bool(interval) and sys.stdout.isatty() and not settings.as_json
    if limit is None:
        rows = shutil.get_terminal_size().lines - _OTHER_LINES
        limit = max(1, min(rows, _CONSUMERS)) if in_place else _CONSUMERS
    user = load_user(settings)
    asyncio.run(_show(Connection(user, settings), interval, limit, in_place=in_place))


def _named(context: click.Context, names: Collection[str]) -> str:
    """The options as one types them."""
    given = [each.opts[0] for each in context.command.params if each.name in names]
    return " and ".join(given)


async def _show(opened: Connection, interval: float, limit: int, *, in_place: bool) -> None:
    as_json = opened.settings.as_json
    async with (
        opened as connection,
        aclosing(watch_hub(connection, interval, limit, TIMEOUT)) as states,
    ):
        first = True
        async for state in states:
            if in_place:
                click.clear()
            elif not (first or as_json):
                click.echo()
            _print(state, as_json=as_json)
            first = False
    if interval:
        raise CommandError("the event hub ended the stream")


def _print(state: HubState, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(record(state), ensure_ascii=False))
    else:
        click.echo("\n".join(table(state)))
