"""`selvedge events`: print what happens on the channel."""

from __future__ import annotations

import asyncio

import click

from selvedge_cli.durations import DURATION
from selvedge_cli.options import Settings, common_options, given_options

EXAMPLES = """\b
Examples:
  selvedge events                                   blocks, from where the last run stopped
  selvedge events --type chaincode --from oldest    all chaincode events there ever were
  selvedge events --type chaincode --name 'Asset*'  those of some names
  selvedge events --from 0 --until newest --json    what there is now, for a script
  selvedge events --chat --type chaincode --channel news --chaincode weather
                                                    what the producer weather publishes
  selvedge events --consumers --every 2s            who listens to the event hub, live"""

BLOCKS = ("block", "filtered")
"""What is told of whole blocks. All else is told of transactions, which can be chosen among."""


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
    type=click.Choice([*BLOCKS, "chaincode", "rejection", "transaction"]),
    default="block",
    show_default=True,
    help="What to print of each block.",
)
@click.option("--chaincode", "chaincodes", multiple=True, help="Only what called this chaincode.")
@click.option("--name", "names", multiple=True, help="Only events of this name, as in 'Asset*'.")
@click.option("--creator", "creators", multiple=True, help="Only what members of this MSP id sent.")
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
    help="Name of the checkpoint.  [default: one for each --type and what is chosen of it]",
)
@click.option("--chat", is_flag=True, help="Listen as clients of Fabric 1.x do, by Events/Chat.")
@click.option("--consumers", is_flag=True, help="Show who listens to the event hub instead.")
@click.option("--every", type=DURATION, help="With --consumers: show it again and again.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    help="With --consumers: how many; those furthest behind.  [default: 100, or what has room]",
)
@common_options
def events(
    settings: Settings,
    kind: str,
    chaincodes: tuple[str, ...],
    names: tuple[str, ...],
    creators: tuple[str, ...],
    start: str | int | None,
    stop: str | int | None,
    count: int | None,
    resume: str | None,
    chat: bool,
    consumers: bool,
    every: float | None,
    limit: int | None,
) -> None:
    """Print what happens on the channel, one line for each event, until Ctrl-C.

    Each run continues where the last one of the same --type, --chaincode, --name and --creator (or
    --resume NAME) stopped on this ledger, and servers that go away are waited for, so that no event
    is missed or printed twice; with --until one has to be there at the start. A run with --from
    counts unless it leaves events out; with --resume NAME it places that checkpoint anew.
    The event hub is read, or the peer while there is no hub; with --peer, that peer alone.
    With --chat the hub's Events/Chat is listened to: --until and --resume do not go with it, and a
    hub that goes away ends the command.
    With --consumers the event hub's channels and consumers are shown, as it tells them to its
    administrators: the user is admin, unless --user says otherwise.
    """
    if consumers:
        from selvedge_cli.consumers import show_consumers

        show_consumers(settings, every, limit)
        return
    if every or limit:
        raise click.UsageError("--every and --limit go with --consumers.")
    from selvedge_cli.connection import Connection, load_user
    from selvedge_cli.follow import follow
    from selvedge_cli.listen import listen
    from selvedge_cli.wanted import Wanted

    context = click.get_current_context()
    peer_alone = context.params.get("peer") is not None
    wanted = Wanted(kind, chaincodes, names, creators)
    if kind in BLOCKS and (chaincodes or names or creators):
        raise click.UsageError(
            f"--type {kind} is told of whole blocks: choose among --type chaincode, rejection or "
            "transaction by --chaincode, --name and --creator."
        )
    if chat and (stop is not None or resume):
        raise click.UsageError("--chat is live: it has no --until or --resume.")
    if chat and peer_alone:
        raise click.UsageError("--chat listens to the event hub: give --events instead of --peer.")
    if chat and (creators or kind == "transaction"):
        raise click.UsageError("--chat knows no --creator, and no --type transaction.")
    if chat and kind == "chaincode" and not chaincodes:
        raise click.UsageError("--chat needs to know whose events: give --chaincode NAME.")
    if chat and kind == "rejection" and (chaincodes or names):
        raise click.UsageError(
            "--chat tells of all rejections: leave out --chaincode and --name, or --chat."
        )
    if isinstance(start, int) and isinstance(stop, int) and start > stop:
        raise click.UsageError(f"--from {start} is after --until {stop}: nothing lies between.")
    given = given_options(context, "chat", "start", "count")
    user = load_user(settings)

    async def run() -> None:
        async with Connection(user, settings) as connection:
            if chat:
                await listen(connection, wanted, start, count, given)
            else:
                await follow(connection, wanted, start, stop, count, resume, peer_alone=peer_alone)

    asyncio.run(run())
