"""`selvedge ledger`: look after the ledger of a home.

What it does is chaincode-support's own command, which containers have as well; here it is run on
the home's volume.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from selvedge_cli import ENVIRONMENT
from selvedge_cli import options as cli_options
from selvedge_cli.errors import CommandError
from selvedge_cli.options import debug_option, home_option, json_option

SERVICE = "chaincode-support"
"""Whose volume holds the ledger."""

_NOTHING_DONE = "it could not be done, and nothing was changed"

_force = click.option("--force", is_flag=True, help="Replace channels that are there already.")


def _epilog(example: str, *, done: str, failed: str = _NOTHING_DONE, damaged: str = "") -> str:
    statuses = [f"  0  {done}", f"  1  {failed}"]
    if damaged:
        statuses.append(f"  3  {damaged}")
    return "\n".join(["\b", "Exit status:", *statuses, "", f"Example: selvedge ledger {example}"])


def _home_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option(
            "--channel",
            "channels",
            multiple=True,
            metavar="NAME",
            help="This channel only; may be given again.  [default: all]",
        ),
        home_option,
        json_option,
        debug_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group(epilog="Example: selvedge ledger verify")
def ledger() -> None:
    """Verify, back up, restore and rebuild the ledger.

    For a ledger in a container: docker compose exec chaincode-support chaincode-support-ledger.
    """


@ledger.command(
    short_help="See whether it is sound.",
    epilog=_epilog("verify", done="all is sound", damaged="a channel is damaged"),
)
@click.option(
    "--scratch",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="FOLDER",
    help="Where the state is made once more, to be compared.  [default: beside the ledger]",
)
@click.option(
    "--no-judge", is_flag=True, help="Take the verdicts on transactions as they are: faster."
)
@_home_options
def verify(
    scratch: Path | None, no_judge: bool, channels: Sequence[str], home: Path, as_json: bool
) -> None:
    """See whether the ledger is sound; the services may run.

    Of ledger and ordering log each page, and each block's data, signatures and link to the one
    before; that the two agree; that state, history and index are what the blocks lead to; and that
    each transaction has the verdict that it has when it is judged again. Two peers that committed
    the same print the same state hash.
    """
    _require_volume(home)
    options = ["--no-judge"] if no_judge else []
    _run("verify", home, channels, *_given("--scratch", scratch), *options, as_json=as_json)


@ledger.command(
    short_help="Copy it, also while it is written.",
    epilog=_epilog(
        "backup --to backups/monday",
        done="the copy is complete and sound",
        damaged="it is complete, and as damaged as the channel is",
    ),
)
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="FOLDER",
    help="A new folder for the backup.",
)
@click.option("--no-verify", is_flag=True, help="Do not verify the copy, which may take long.")
@_home_options
def backup(
    folder: Path, no_verify: bool, channels: Sequence[str], home: Path, as_json: bool
) -> None:
    """Copy ledger and ordering log, and verify the copy; the services may run."""
    _require_volume(home)
    options = ["--no-verify"] if no_verify else []
    _run("backup", home, channels, *_given("--to", folder), *options, as_json=as_json)


@ledger.command(
    short_help="Put a copy in its place.",
    epilog=_epilog(
        "restore --from backups/monday",
        done="the backup was sound, and is in its place",
        failed="it could not be done, or the backup is not sound, and nothing was changed",
    ),
)
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="FOLDER",
    help="The backup's folder.",
)
@_force
@_home_options
def restore(folder: Path, force: bool, channels: Sequence[str], home: Path, as_json: bool) -> None:
    """Put channels back from a backup, which is verified first; the services must be stopped."""
    options = ["--force"] if force else []
    _run("restore", home, channels, *_given("--from", folder), *options, as_json=as_json)


@ledger.command(
    short_help="Make all but the blocks again.",
    epilog=_epilog("rebuild", done="it was rebuilt"),
)
@click.option(
    "--force",
    is_flag=True,
    help="Give up a block that is lost in both files, and all that follow; the old files are kept "
    "aside.",
)
@_home_options
def rebuild(force: bool, channels: Sequence[str], home: Path, as_json: bool) -> None:
    """Make state, history and indexes again from the blocks; the services must be stopped.

    A block that is damaged in the ledger is taken from the ordering log, and the other way round.
    """
    _require_volume(home)
    _run("rebuild", home, channels, *(["--force"] if force else []), as_json=as_json)


def _require_volume(home: Path) -> None:
    volume = home / SERVICE
    if not volume.is_dir():
        raise CommandError(
            f"there is no ledger in {home}: give the home of `selvedge up` with --home; in a "
            "container run `docker compose exec chaincode-support chaincode-support-ledger`"
        )


def _given(option: str, path: Path | None) -> list[str]:
    return [] if path is None else [option, str(path)]


def _run(command: str, home: Path, channels: Sequence[str], *options: str, as_json: bool) -> None:
    """Run the service's command on a home's volume, and end as it does."""
    words = [sys.executable, "-m", "chaincode_support.maintenance", "--typed", "selvedge ledger"]
    words += [command, *options, "--volume", str(home / SERVICE)]
    for channel in channels:
        words += ["--channel", channel]
    if as_json:
        words.append("--json")
    if cli_options.debugging:
        words.append("--debug")
    process = subprocess.Popen(words, env=ENVIRONMENT, stdin=subprocess.DEVNULL)  # noqa: S603
    with suppress(KeyboardInterrupt):
        process.wait()
    # After Ctrl-C, which reached it as well, it still has to clean up.
    status = process.wait()
    raise SystemExit(status if status >= 0 else 128 - status)
