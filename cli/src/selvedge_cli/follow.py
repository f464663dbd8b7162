"""Following a channel: every event once, across servers that go away and from run to run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import click

from selvedge_cli import records
from selvedge_cli.checkpoints import Progress, checkpoint_file, is_known_elsewhere
from selvedge_cli.client_errors import said_by_client, told_by_client
from selvedge_cli.connection import Connection
from selvedge_cli.errors import CommandError
from selvedge_cli.options import Settings
from selvedge_cli.records import Record
from selvedge_cli.rendering import Printer
from selvedge_cli.wanted import Wanted
from selvedge_client import Checkpoint, Client, Ledger, NotReachable, Position
from selvedge_common.protoutil.blocks import header_hash

_VALIDITY: Mapping[str, Literal["valid", "invalid", "any"]] = {
    "chaincode": "valid",
    "rejection": "invalid",
    "transaction": "any",
}


async def follow(
    connection: Connection,
    wanted: Wanted,
    start: str | int | None,
    stop: str | int | None,
    count: int | None,
    resume: str | None,
    *,
    peer_alone: bool = False,
) -> None:
    """Print what is wanted, and remember how far it was printed.

    Args:
        start: the first block, "oldest" or "newest"; None to go on where the last run stopped.
        stop: the last block, or "newest"; None to follow.
        count: how many events to stop after.
        resume: the name of the checkpoint, if it is not that of what is wanted.
        peer_alone: read the peer, and not the event hub.

    Raises:
        CommandError: the user may not read, the ledger is another one, or there is nothing there.
    """
    settings = connection.settings
    peer, hub = settings.addresses.peer, settings.addresses.events

    def client(*addresses: str) -> Client:
        return Client(
            [peer] if peer_alone else addresses,
            lambda: connection.user,
            on_pause=lambda away: _tell_away(away, settings),
        )

    with told_by_client(settings):
        # What has an end is for scripts: they are told at once that nobody is there. The peer has
        # each block before the hub has.
        first_asked = client(peer, hub)
        ledger = await first_asked.ledger(settings.channel, wait=stop is None)
        name = resume or wanted.checkpoint
        checkpoint = Checkpoint(checkpoint_file(settings.home, name, settings.channel, ledger.id))
        begin = _begin(start, checkpoint, ledger, name)
        printed = checkpoint.position
        # A ledger that was restored and went on otherwise has the same block 0, and to wait for
        # what comes next would not show it.
        if (
            begin is None
            and printed is not None
            and not await first_asked.recognises(settings.channel, printed, wait=stop is None)
        ):
            raise _of_another_ledger(checkpoint.file, settings.channel, printed.block, name)
        progress = Progress(checkpoint, begin, anew=start is not None and resume is not None)
        first = _first(begin, progress.position)
        last = ledger.newest if isinstance(stop, str) else stop
        if last is not None and first > last:
            return
        printer = Printer(settings.as_json, count)
        told = _told(client(hub, peer), settings.channel, wanted, first, last, progress)
        found = False
        async with aclosing(told):
            async for position, record in told:
                found = True
                ended = printer.print(record)
                if ended or position.transaction is None:
                    await progress.advance(position)
                if ended:
                    return
        if not found:
            # Perhaps a name is misspelt.
            click.echo(f"selvedge: nothing of the kind in blocks {first} to {last}", err=True)


def _of_another_ledger(file: Path, channel: str, block: int, name: str) -> CommandError:
    return CommandError(
        f"the checkpoint {file} is of another ledger than {channel} has now, where block {block} "
        "has another hash: the ledger was replaced, or restored and went on otherwise. Begin with "
        f"this one by `--from oldest --resume {name}`, once, or at a block of your choice; or "
        "connect to the other ledger"
    )


def _begin(
    start: str | int | None, checkpoint: Checkpoint, ledger: Ledger, name: str
) -> int | None:
    """The first block; None to go on where the checkpoint is.

    Raises:
        CommandError: there is nothing of the kind yet.
    """
    begin = {"oldest": 0, "newest": ledger.newest}[start] if isinstance(start, str) else start
    printed = checkpoint.position
    if begin is None and printed is None:
        begin = ledger.newest
        if is_known_elsewhere(checkpoint.file):
            begin = 0
            click.echo(
                "selvedge: this is another ledger than the one that was printed before: beginning "
                "at its oldest block",
                err=True,
            )
    first = _first(begin, printed)
    if begin is None and printed is not None and printed.block > ledger.newest:
        raise CommandError(
            f"the checkpoint {checkpoint.file} is ahead of the ledger: it goes on with block "
            f"{first}, and the newest is {ledger.newest}: if the ledger was restored from a "
            f"backup, place the checkpoint with `--from N --resume {name}`, else look for what the "
            "ledger has lost"
        )
    if first > ledger.newest + 1:
        raise CommandError(
            f"there is no block {first} yet, the newest is {ledger.newest}: begin before that with "
            "--from"
        )
    return begin


def _first(begin: int | None, printed: Position | None) -> int:
    """The number of the first block that is looked at."""
    if begin is not None:
        return begin
    return printed.next[0] if printed is not None else 0


async def _told(
    client: Client,
    channel: str,
    wanted: Wanted,
    first: int,
    last: int | None,
    progress: Progress,
) -> AsyncGenerator[tuple[Position, Record], None]:
    """What is told, each with its position."""
    if wanted.kind == "block":
        async with aclosing(client.blocks(channel, start=first, until=last)) as blocks:
            async for block in blocks:
                header = block.header
                yield (
                    Position(header.number, None, header_hash(header)),
                    records.block_record(block),
                )
    elif wanted.kind == "filtered":
        async with aclosing(client.filtered_blocks(channel, start=first, until=last)) as filtered:
            async for each in filtered:
                yield Position(each.number), records.filtered_record(each)
    else:
        told = client.subscribe(
            channel,
            chaincodes=wanted.chaincodes,
            names=wanted.names,
            creators=wanted.creators,
            validity=_VALIDITY[wanted.kind],
            transactions=wanted.kind == "transaction",
            payload=wanted.kind == "chaincode",
            start=first,
            until=last,
            checkpoint=progress,
        )
        async with aclosing(told):
            async for event in told:
                yield event.position, records.told_record(wanted.kind, event)


def _tell_away(away: NotReachable, settings: Settings) -> None:
    click.echo(f"selvedge: {said_by_client(away, settings)}; waiting for it", err=True)
