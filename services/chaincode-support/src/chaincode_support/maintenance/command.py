"""The console command `chaincode-support-ledger`: `verify`, `backup`, `restore` and `rebuild`."""

from __future__ import annotations

import errno
import json
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from chaincode_support import config
from chaincode_support.ledger import LedgerError
from chaincode_support.maintenance import arguments
from chaincode_support.maintenance.errors import MaintenanceError, NoRoom, NothingThere
from chaincode_support.maintenance.progress import ProgressLine
from chaincode_support.maintenance.report import Report
from chaincode_support.maintenance.verification import verify
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

_REMEDIES = {
    errno.EACCES: "Run this as the user to whom the volume belongs, or choose another folder.",
    errno.EPERM: "Run this as the user to whom the volume belongs, or choose another folder.",
    errno.EROFS: "Choose a folder on a disk that can be written.",
    errno.ENOSPC: "Make room on its disk.",
}
_CHECK = "Check that path, and the disk that it is on."


def main() -> None:
    """Run one of the commands; whatever goes wrong becomes one sentence and an exit status."""
    given = arguments.parse()
    # Scratch files are removed whoever ends the command.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Rejected transactions, which are judged again here, are no news.
    logs.configure("error", "console")
    try:
        volume = given.volume or config.read(None).peer.file_system_path
        status = _COMMANDS[given.command](volume, given)
    except (OSError, MaintenanceError, LedgerError, MalformedBlock, ConfigError) as error:
        if given.debug:
            raise
        status = _fail(error, given)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _fail(error: Exception, given: Namespace) -> int:
    sentence = str(error)
    if isinstance(error, OSError):
        remedy = _REMEDIES.get(error.errno or 0, _CHECK)
        where = error.filename or "A file or folder"
        sentence = f"{where} cannot be used: {error.strerror or error}. {remedy}"
    if given.json:
        print(json.dumps({"error": sentence}))
    print(f"{given.typed} {given.command}: {sentence}", file=sys.stderr)
    return FAILED


def _verify(volume: Path, given: Namespace) -> int:
    progress = ProgressLine(sys.stderr)
    try:
        reports = [
            verify(
                ChannelFiles.on(volume, channel),
                progress,
                given.scratch,
                judge=not given.no_judge,
            )
            for channel in _channels(volume, given)
        ]
    except NoRoom as error:
        raise NoRoom(f"{error} Or name a folder on another one with --scratch.") from error
    return _tell_reports(reports, given, {"volume": str(volume)})


def _backup(volume: Path, given: Namespace) -> int:
    from chaincode_support.maintenance.backup import back_up

    progress = ProgressLine(sys.stderr)
    channels = _channels(volume, given)
    copied = back_up(volume, channels, given.to, progress)
    facts = {
        "backup": str(given.to),
        "copied": {channel: asdict(each) for channel, each in copied.items()},
    }
    if not given.json:
        for channel, each in copied.items():
            print(
                f"channel {channel}: {each.blocks} blocks copied to {given.to}, and "
                f"{each.ordered} of its ordering log"
            )
    if given.no_verify:
        if given.json:
            print(json.dumps(facts))
        return 0
    # By the verdicts as they are: it is the copy that is looked at, not who has judged.
    reports = [
        verify(ChannelFiles.on(given.to, channel), progress, given.to, judge=False)
        for channel in channels
    ]
    return _tell_reports(reports, given, facts)


def _restore(volume: Path, given: Namespace) -> int:
    from chaincode_support.maintenance.restoring import restore

    reports = restore(
        given.source, volume, given.channel, ProgressLine(sys.stderr), force=given.force
    )
    if not given.json:
        for report in reports:
            print(f"channel {report.channel}: {report.blocks} blocks restored from {given.source}")
    return _tell_reports(reports, given, {"volume": str(volume)})


def _rebuild(volume: Path, given: Namespace) -> int:
    from chaincode_support.maintenance.rebuilding import rebuild

    progress = ProgressLine(sys.stderr)
    rebuilt = [
        rebuild(ChannelFiles.on(volume, channel), progress, force=given.force)
        for channel in _channels(volume, given)
    ]
    if given.json:
        record = {"volume": str(volume), "channels": [asdict(each) for each in rebuilt]}
        print(json.dumps(record))
        return 0
    for each in rebuilt:
        _print_rebuilt(each)
    return 0


_COMMANDS = {"verify": _verify, "backup": _backup, "restore": _restore, "rebuild": _rebuild}


def _channels(volume: Path, given: Namespace) -> list[str]:
    """The channels that are meant, which are there. Raises NothingThere."""
    found = channels_on(volume)
    if not found:
        raise NothingThere(
            f"There is no channel on {volume}: "
            + (
                "name the volume of chaincode-support with --volume."
                if given.typed == arguments.NAME
                else "give the home of `selvedge up` with --home."
            )
        )
    for channel in given.channel:
        if channel not in found:
            raise NothingThere(
                f"There is no channel {channel} on {volume}: it has {', '.join(found)}."
            )
    return given.channel or found


def _tell_reports(reports: Sequence[Report], given: Namespace, facts: Mapping[str, object]) -> int:
    sound = all(report.sound for report in reports)
    if given.json:
        record = {**facts, "sound": sound, "channels": [report.record() for report in reports]}
        print(json.dumps(record))
    else:
        for report in reports:
            _print_report(report, given)
    return 0 if sound else DAMAGED


def _print_report(report: Report, given: Namespace) -> None:
    print(f"channel {report.channel}: {'sound' if report.sound else 'DAMAGED'}")
    print(f"  blocks           {report.blocks}, {report.ordered} in the ordering log")
    if report.judged:
        print(f"  judged again     {report.judged}, to the same verdicts")
    print(f"  last block hash  {report.last_block_hash or 'none'}")
    print(f"  state hash       {report.state_hash or 'none'}")
    for finding in report.findings:
        print(f"  {finding.file}: {finding.what}")
    for remedy in _remedies_of(report, given):
        print(f"  {remedy}")


def _remedies_of(report: Report, given: Namespace) -> Iterator[str]:
    rebuild = f"`{given.typed} rebuild`"
    if report.sound:
        return
    if given.command == "backup":
        yield (
            f"the copy is as the channel is: do not rely on it; stop the service, run {rebuild}, "
            "and back up again"
        )
        return
    if not all(finding.verdict for finding in report.findings):
        yield f"stop the service and run {rebuild}; what neither file holds is in a backup only"
    if any(finding.verdict for finding in report.findings):
        yield (
            "an earlier release that committed that block may have judged otherwise: then verify "
            "with --no-judge; if it was this one, the file was changed: stop the service, move "
            f"the file away and run {rebuild}, which judges all blocks of the ordering log"
        )


def _print_rebuilt(rebuilt: Rebuilt) -> None:
    print(f"channel {rebuilt.channel}: made again from {rebuilt.blocks} blocks")
    if rebuilt.judged:
        print(
            f"  {rebuilt.judged} judged again: the ledger's verdicts on them were missing, or did "
            "not agree"
        )
    if rebuilt.recovered:
        print(f"  {rebuilt.recovered} taken from the ledger: the ordering log had lost them")
    if rebuilt.given_up:
        print(f"  {rebuilt.given_up} given up, for neither file holds the first of them")
    if rebuilt.kept:
        print(
            f"  kept as they were: {', '.join(rebuilt.kept)}; remove them when nothing more is to "
            "be saved from them"
        )
