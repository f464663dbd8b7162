"""Listening to the event hub as clients of Fabric 1.x do."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from contextlib import aclosing

import click

from selvedge_cli import chat, records
from selvedge_cli.connection import Connection
from selvedge_cli.deliver import newest_of_hub
from selvedge_cli.errors import CommandError, NoSuchChannel
from selvedge_cli.rendering import Printer
from selvedge_cli.wanted import Wanted
from selvedge_common.protoutil.event_filter import fits

PATIENCE = 3.0
"""Seconds that the hub has to say whether it has the channel."""


async def listen(
    connection: Connection,
    wanted: Wanted,
    start: str | int | None,
    count: int | None,
    given: Sequence[str],
) -> None:
    """Print what the hub's Events/Chat tells.

    Args:
        start: the first block, "oldest" or "newest"; None for what happens from now on.
        count: how many events to stop after.
        given: the other options of the command, which one that goes on where this one ends has too.

    Raises:
        CommandError: the hub cannot be reached, refused, or went away.
    """
    consumer = chat.Chat(connection, await _first_block(connection, start))
    await consumer.register(chat.interests(wanted.kind, wanted.chaincodes, wanted.names))
    # A hub takes interests in any channel, since producers may publish on any: chaincode events.
    unknown = None if start is not None else await _no_ledger(connection)
    if unknown is not None:
        if wanted.kind != "chaincode":
            raise unknown
        click.echo(
            f"selvedge: no ledger of the event hub has a channel {connection.settings.channel}: "
            "waiting for what producers publish on it",
            err=True,
        )
    printer = Printer(connection.settings.as_json, count)
    block: int | None = None
    try:
        async with aclosing(consumer.events()) as live:
            async for event in live:
                record = records.hub_record(event)
                if record is None:
                    continue
                name = record.get("name", "")
                is_wanted = not wanted.names or any(fits(glob, name) for glob in wanted.names)
                if is_wanted and printer.print(record):
                    return
                block = record.get("number", block)
        raise CommandError("the event hub ended the stream")
    except CommandError as lost:
        if unknown is not None:
            raise  # What producers publish is kept nowhere.
        raise CommandError(f"{lost}; {_how_to_go_on(given, block, printer.left)}") from lost


async def _first_block(connection: Connection, start: str | int | None) -> int | None:
    """The number of the block that `--chat` begins with; None for what happens next."""
    if start == "newest":
        return await newest_of_hub(connection)
    return 0 if isinstance(start, str) else start


async def _no_ledger(connection: Connection) -> NoSuchChannel | None:
    """What the hub says if it has no such channel, and says so to this user."""
    try:
        async with asyncio.timeout(PATIENCE):
            await newest_of_hub(connection)
    except NoSuchChannel as error:
        return error
    except (CommandError, TimeoutError):
        pass
    return None


def _how_to_go_on(given: Sequence[str], block: int | None, left: int | None) -> str:
    """What prints the events that a broken `--chat` misses."""
    first = "N" if block is None else str(block + 1)
    count = [] if left is None else ["--count", str(left)]
    command = shlex.join(["selvedge", "events", *given, "--from", first, *count])
    which = " with N the first block that you may have missed" if block is None else ""
    return f"to miss nothing, go on with `{command}`{which}"
