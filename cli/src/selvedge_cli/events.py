"""`selvedge events`: print what happens on the channel."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from selvedge_cli.checkpoints import Checkpoint, Printed, Progress
from selvedge_cli.errors import CommandError
from selvedge_cli.options import Settings, common_options

if TYPE_CHECKING:
    from selvedge_cli.connection import Connection
    from selvedge_cli.deliver import Chain
    from selvedge_cli.follow import Wanted

EXAMPLES = """\b
Examples:
  selvedge events                                   blocks, from where the last run stopped
  selvedge events --type chaincode --from oldest    all chaincode events there ever were
  selvedge events --from 0 --until newest --json    what there is now, for a script"""


class Place(click.ParamType[str | int]):
    """A block's number, or one of some words."""

    name = "place"

    def __init__(self, *words: str) -> None:
        self._words = words

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int:
        """Read what the user wrote."""
        if isinstance(value, int) or value in self._words:
            return value
        if not value.isdigit():
            self.fail(f"{value!r} is no block: give its number or {' or '.join(self._words)}")
        return int(value)


@click.command(epilog=EXAMPLES)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["block", "filtered", "chaincode", "rejection"]),
    default="block",
    show_default=True,
    help="What to print of each block.",
)
@click.option("--chaincode", default="", help="Only events of this chaincode.")
@click.option("--name", default="", help="Only chaincode events of this name.")
@click.option(
    "--from",
    "start",
    type=Place("oldest", "newest"),
    metavar="N|oldest|newest",
    help="First block.  [default: after the last one printed, else newest]",
)
@click.option(
    "--until",
    "stop",
    type=Place("newest"),
    metavar="N|newest",
    help="Last block; without it, follow.",
)
@click.option("--count", type=click.IntRange(1), help="Stop after so many events.")
@click.option(
    "--resume",
    metavar="NAME",
    help="Name of the checkpoint.  [default: one for each --type, --chaincode and --name]",
)
@click.option("--chat", is_flag=True, help="Live from the event hub instead of from the peer.")
@common_options
def events(
    settings: Settings,
    kind: str,
    chaincode: str,
    name: str,
    start: str | int | None,
    stop: str | int | None,
    count: int | None,
    resume: str | None,
    chat: bool,
) -> None:
    """Print what happens on the channel, one line for each event, until Ctrl-C.

    Each run continues where the last one of the same --type, --chaincode and --name (or --resume
    NAME) stopped on this ledger, and a peer that goes away is waited for, so that no event is
    missed or printed twice; with --until it has to be there at the start. A run with --from counts
    unless it leaves events out; with --resume NAME it places that checkpoint anew.
    With --chat the event hub is listened to instead: it has no past, so --from, --until and
    --resume do not go with it, and a hub that goes away ends the command.
    """
    from selvedge_cli.connection import Connection, load_user
    from selvedge_cli.follow import Kind, Wanted

    if chat and (start is not None or stop is not None or resume):
        raise click.UsageError("--chat is live: it has no --from, --until or --resume.")
    if chat and kind == "chaincode" and not chaincode:
        raise click.UsageError("--chat needs to know whose events: give --chaincode NAME.")
    if isinstance(start, int) and isinstance(stop, int) and start > stop:
        raise click.UsageError(f"--from {start} is after --until {stop}: nothing lies between.")
    wanted = Wanted(Kind(kind), chaincode, name)
    user = load_user(settings)

    async def run() -> None:
        async with Connection(user, settings) as connection:
            if chat:
                await _listen(connection, wanted, count)
            else:
                await _follow(connection, wanted, start, stop, count, resume)

    asyncio.run(run())


async def _follow(
    connection: Connection,
    wanted: Wanted,
    start: str | int | None,
    stop: str | int | None,
    count: int | None,
    resume: str | None,
) -> None:
    from selvedge_cli.deliver import FOREVER, look_at
    from selvedge_cli.follow import follow, wait_for_chain

    settings = connection.settings
    if stop is None:
        chain = await wait_for_chain(connection, on_pause=_tell_away)
    else:
        # What has an end is for scripts: they are told at once that nobody is there.
        chain = await look_at(connection)
    name = resume or wanted.checkpoint
    checkpoint = Checkpoint(settings.home, name, settings.channel, chain.ledger)
    begin, skip = _begin(start, checkpoint, chain)
    progress = Progress(checkpoint, (begin, skip), anew=start is not None and resume is not None)
    end = FOREVER if stop is None else chain.newest if isinstance(stop, str) else stop
    if begin > end:
        return
    printer = Printer(settings.as_json, count)
    async with aclosing(follow(connection, wanted, chain, begin, end, on_pause=_tell_away)) as told:
        async for block in told:
            records = list(block.records)
            for printed, record in enumerate(records[skip:], skip + 1):
                if printer.print(record):
                    rest = printed < len(records)
                    progress.reached(Printed(block.number, printed if rest else None))
                    return
            progress.reached(Printed(block.number))
            skip = 0


def _begin(start: str | int | None, checkpoint: Checkpoint, chain: Chain) -> tuple[int, int]:
    """The first block, and how many of its events were printed before.

    Raises:
        CommandError: there is nothing of the kind yet.
    """
    if start is not None:
        place = {"oldest": 0, "newest": chain.newest}
        begin, skip = (start if isinstance(start, int) else place[start]), 0
    elif printed := checkpoint.read():
        begin, skip = printed.next
    elif checkpoint.is_known_elsewhere:
        click.echo(
            "selvedge: this is another ledger than the one that was printed before: beginning at "
            "its oldest block",
            err=True,
        )
        begin, skip = 0, 0
    else:
        begin, skip = chain.newest, 0
    if begin > chain.newest + 1:
        raise CommandError(
            f"there is no block {begin} yet, the newest is {chain.newest}: begin before that with "
            "--from"
        )
    return begin, skip


async def _listen(connection: Connection, wanted: Wanted, count: int | None) -> None:
    from selvedge_cli import chat, records
    from selvedge_cli.follow import Kind

    interest = {
        Kind.BLOCK: chat.BLOCK,
        Kind.FILTERED: chat.FILTERED,
        Kind.REJECTION: chat.REJECTION,
        Kind.CHAINCODE: chat.chaincode_interest(wanted.chaincode, wanted.name),
    }[wanted.kind]
    consumer = chat.Chat(connection)
    await consumer.register([interest])
    printer = Printer(connection.settings.as_json, count)
    block: int | None = None
    try:
        async with aclosing(consumer.events()) as live:
            async for event in live:
                record = records.hub_record(event)
                if record is not None and wanted.matches(record) and printer.print(record):
                    return
                block = block if record is None else record.get("number", block)
        raise CommandError("the event hub ended the stream")
    except CommandError as lost:
        raise CommandError(f"{lost}; {_how_to_go_on(wanted, block)}") from lost


def _how_to_go_on(wanted: Wanted, block: int | None) -> str:
    """What prints the events that a broken `--chat` misses: the peer keeps them."""
    words = ["selvedge", "events", "--type", wanted.kind.value]
    for option, value in (("--chaincode", wanted.chaincode), ("--name", wanted.name)):
        words += [option, value] if value else []
    command = shlex.join([*words, "--from", "N" if block is None else str(block + 1)])
    which = " with N the first block that you may have missed" if block is None else ""
    return f"to miss nothing, go on with `{command}`{which}"


class Printer:
    """Prints events up to a number of them."""

    def __init__(self, as_json: bool, count: int | None) -> None:
        self._as_json = as_json
        self._left = count

    def print(self, record: dict[str, object]) -> bool:
        """Print one; True when it was the last that was asked for."""
        from selvedge_cli.rendering import render

        click.echo(render(record, as_json=self._as_json))
        if self._left is not None:
            self._left -= 1
        return self._left == 0


def _tell_away(away: CommandError) -> None:
    click.echo(f"selvedge: {away}; waiting for it", err=True)
