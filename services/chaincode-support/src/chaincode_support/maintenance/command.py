"""The console command `chaincode-support-ledger`: `verify`, `backup`, `restore` and `rebuild`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from chaincode_support import config
from chaincode_support.ledger import LedgerError
from chaincode_support.maintenance.errors import MaintenanceError, NothingThere
from chaincode_support.maintenance.progress import ProgressLine
from chaincode_support.maintenance.verification import Report, verify
from chaincode_support.volume import ChannelFiles, channels_on
from selvedge_common import logs
from selvedge_common.config import ConfigError
from selvedge_common.protoutil.errors import MalformedBlock

if TYPE_CHECKING:
    from chaincode_support.maintenance.rebuilding import Rebuilt

FAILED = 1
"""Nothing was done; a sentence says why. (2 is a wrong command line.)"""
DAMAGED = 3
"""Something is wrong with a channel."""

_DESCRIPTION = "Look after the ledgers and the ordering logs of chaincode-support."
_STATUSES = """exit status:
  0  done; what was verified is sound
  1  it could not be done, and nothing was changed
  3  a channel is damaged"""


def main() -> None:
    """Run one of the commands; whatever goes wrong becomes one sentence and an exit status."""
    arguments = _parser().parse_args()
    # Scratch files are removed whoever ends the command.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Rejected transactions, which a rebuild may judge again, are no news.
    logs.configure("error", "console")
    try:
        volume = arguments.volume or config.read(None).peer.file_system_path
        status: int = arguments.command(volume, arguments)
    except OSError as error:
        status = _fail(f"{error.filename or 'the system'}: {error.strerror or error}.", arguments)
    except (MaintenanceError, LedgerError, MalformedBlock, ConfigError) as error:
        status = _fail(str(error), arguments)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _fail(sentence: str, arguments: argparse.Namespace) -> int:
    if arguments.json:
        print(json.dumps({"error": sentence}))
    print(f"chaincode-support-ledger: {sentence}", file=sys.stderr)
    return FAILED


def _verify(volume: Path, arguments: argparse.Namespace) -> int:
    progress = ProgressLine(sys.stderr)
    reports = [
        verify(ChannelFiles.on(volume, channel), progress, arguments.scratch)
        for channel in _channels(volume, arguments.channel)
    ]
    return _tell_reports(reports, arguments, {"volume": str(volume)})


def _backup(volume: Path, arguments: argparse.Namespace) -> int:
    from chaincode_support.maintenance.backup import back_up

    progress = ProgressLine(sys.stderr)
    channels = _channels(volume, arguments.channel)
    copied = back_up(volume, channels, arguments.to, progress)
    facts = {
        "backup": str(arguments.to),
        "copied": {channel: asdict(each) for channel, each in copied.items()},
    }
    if not arguments.json:
        for channel, each in copied.items():
            print(
                f"channel {channel}: {each.blocks} blocks copied to {arguments.to}, and "
                f"{each.ordered} of its ordering log"
            )
    if arguments.no_verify:
        if arguments.json:
            print(json.dumps(facts))
        return 0
    reports = [
        verify(ChannelFiles.on(arguments.to, channel), progress, arguments.to)
        for channel in channels
    ]
    return _tell_reports(reports, arguments, facts)


def _restore(volume: Path, arguments: argparse.Namespace) -> int:
    from chaincode_support.maintenance.restoring import restore

    reports = restore(
        arguments.source,
        volume,
        arguments.channel,
        ProgressLine(sys.stderr),
        force=arguments.force,
    )
    return _tell_reports(reports, arguments, {"volume": str(volume)})


def _rebuild(volume: Path, arguments: argparse.Namespace) -> int:
    from chaincode_support.maintenance.rebuilding import rebuild

    progress = ProgressLine(sys.stderr)
    rebuilt = [
        asyncio.run(rebuild(ChannelFiles.on(volume, channel), progress, force=arguments.force))
        for channel in _channels(volume, arguments.channel)
    ]
    if arguments.json:
        record = {"volume": str(volume), "channels": [asdict(each) for each in rebuilt]}
        print(json.dumps(record))
        return 0
    for each in rebuilt:
        _print_rebuilt(each)
    return 0


def _channels(volume: Path, wanted: Sequence[str]) -> list[str]:
    """The channels that are meant, which are there. Raises NothingThere."""
    found = channels_on(volume)
    if not found:
        raise NothingThere(
            f"There is no channel on {volume}: name the volume of chaincode-support with --volume."
        )
    for channel in wanted:
        if channel not in found:
            raise NothingThere(
                f"There is no channel {channel} on {volume}: it has {', '.join(found)}."
            )
    return list(wanted) or found


def _tell_reports(
    reports: Sequence[Report], arguments: argparse.Namespace, facts: Mapping[str, object]
) -> int:
    sound = all(report.sound for report in reports)
    if arguments.json:
        record = {**facts, "sound": sound, "channels": [report.record() for report in reports]}
        print(json.dumps(record))
    else:
        for report in reports:
            _print_report(report)
    return 0 if sound else DAMAGED


def _print_report(report: Report) -> None:
    print(f"channel {report.channel}: {'sound' if report.sound else 'DAMAGED'}")
    print(f"  blocks           {report.blocks}, {report.ordered} in the ordering log")
    print(f"  last block hash  {report.last_block_hash or 'none'}")
    print(f"  state hash       {report.state_hash or 'none'}")
    for finding in report.findings:
        print(f"  {finding.file}: {finding.what}")
    if not report.sound:
        print("  stop the service and run `rebuild`; what neither file holds is in a backup only")


def _print_rebuilt(rebuilt: Rebuilt) -> None:
    print(f"channel {rebuilt.channel}: made again from {rebuilt.blocks} blocks")
    if rebuilt.judged:
        print(f"  {rebuilt.judged} judged anew: the ledger had no verdicts on them that hold")
    if rebuilt.recovered:
        print(f"  {rebuilt.recovered} taken from the ledger: the ordering log had lost them")
    if rebuilt.given_up:
        print(f"  {rebuilt.given_up} given up, for neither file holds the first of them")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chaincode-support-ledger", description=_DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="{verify,backup,restore,rebuild}")
    verifying = _command(
        commands,
        "verify",
        _verify,
        "see whether channels are sound; a service may run",
        "chaincode-support-ledger verify --channel mychannel",
    )
    verifying.add_argument(
        "--scratch",
        type=Path,
        metavar="FOLDER",
        help="where the state is made once more, to be compared; beside the ledger if not given",
    )
    backing_up = _command(
        commands,
        "backup",
        _backup,
        "copy channels, and verify the copy; a service may run",
        "chaincode-support-ledger backup --to /var/lib/selvedge/backups/monday",
    )
    backing_up.add_argument(
        "--to", type=Path, required=True, metavar="FOLDER", help="a new folder for the backup"
    )
    backing_up.add_argument(
        "--no-verify", action="store_true", help="do not verify the copy, which may take long"
    )
    restoring = _command(
        commands,
        "restore",
        _restore,
        "put channels back from a backup, which is verified first; the service must be stopped",
        "chaincode-support-ledger restore --from /var/lib/selvedge/backups/monday",
    )
    restoring.add_argument(
        "--from",
        dest="source",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the backup's folder",
    )
    restoring.add_argument(
        "--force", action="store_true", help="replace channels that are there already"
    )
    rebuilding = _command(
        commands,
        "rebuild",
        _rebuild,
        "make state, history and indexes again from the blocks; the service must be stopped",
        "chaincode-support-ledger rebuild --channel mychannel",
    )
    rebuilding.add_argument(
        "--force",
        action="store_true",
        help="give up a block that is lost in both files, and all that follow",
    )
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[Path, argparse.Namespace], int],
    summary: str,
    example: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"{_STATUSES}\n\nexample:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    command.set_defaults(command=run)
    return command
