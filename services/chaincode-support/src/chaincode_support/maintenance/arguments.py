"""What the command line of `chaincode-support-ledger` can say."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "chaincode-support-ledger"

_DESCRIPTION = "Look after the ledgers and the ordering logs of chaincode-support."
_NOTHING_DONE = "it could not be done, and nothing was changed"


def parse() -> argparse.Namespace:
    """The words of this process's command line; exits with a usage line when they make no sense.

    `command` is `verify`, `backup`, `restore` or `rebuild`, and `typed` what the user has typed
    before it.
    """
    parser = argparse.ArgumentParser(prog=NAME, description=_DESCRIPTION)
    # Whoever calls this one has a name of its own, by which the sentences go.
    parser.add_argument("--typed", default=NAME, help=argparse.SUPPRESS)
    subparsers = parser.add_subparsers(
        required=True, dest="command", metavar="{verify,backup,restore,rebuild}"
    )

    def add(
        name: str,
        summary: str,
        example: str,
        *,
        done: str,
        failed: str = _NOTHING_DONE,
        damaged: str = "",
    ) -> argparse.ArgumentParser:
        statuses = [f"  0  {done}", f"  1  {failed}"]
        if damaged:
            statuses.append(f"  3  {damaged}")
        return subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog="\n".join(
                ["exit status:", *statuses, "", "example:", f"  {NAME} {name} {example}"]
            ),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    _add_verify(
        add(
            "verify",
            "see whether channels are sound; a service may run",
            "--channel mychannel",
            done="all is sound",
            damaged="a channel is damaged",
        )
    )
    _add_backup(
        add(
            "backup",
            "copy channels, and verify the copy; a service may run",
            "--to /var/lib/selvedge/backups/monday",
            done="the copy is complete and sound",
            damaged="it is complete, and as damaged as the channel is",
        )
    )
    _add_restore(
        add(
            "restore",
            "put channels back from a backup, which is verified first; the service must be stopped",
            "--from /var/lib/selvedge/backups/monday",
            done="the backup was sound, and is in its place",
            failed="it could not be done, or the backup is not sound, and nothing was changed",
        )
    )
    _add_rebuild(
        add(
            "rebuild",
            "make state, history and indexes again from the blocks; the service must be stopped",
            "--channel mychannel",
            done="it was rebuilt",
        )
    )
    for command in subparsers.choices.values():
        _add_common(command)
    return parser.parse_args()


def _add_verify(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--scratch",
        type=Path,
        metavar="FOLDER",
        help="where the state is made once more, to be compared; beside the ledger if not given",
    )
    command.add_argument(
        "--no-judge",
        action="store_true",
        help="take the verdicts on transactions as they are, without judging them again",
    )


def _add_backup(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--to", type=Path, required=True, metavar="FOLDER", help="a new folder for the backup"
    )
    command.add_argument(
        "--no-verify", action="store_true", help="do not verify the copy, which may take long"
    )


def _add_restore(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--from",
        dest="source",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the backup's folder",
    )
    command.add_argument(
        "--force", action="store_true", help="replace channels that are there already"
    )


def _add_rebuild(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--force",
        action="store_true",
        help="give up a block that is lost in both files, and all that follow; the old files are "
        "kept aside",
    )


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--volume",
        type=Path,
        metavar="FOLDER",
        help="of chaincode-support; if not given, peer.fileSystemPath of its settings",
    )
    command.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="NAME",
        help="this channel only; may be given again",
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--debug", action="store_true", help="show where a failure came from")
