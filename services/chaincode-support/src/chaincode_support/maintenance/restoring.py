"""Channels put back from a backup."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from chaincode_support.maintenance.errors import InTheWay, NoBackup, NothingThere
from chaincode_support.maintenance.manifest import CopiedFile, Manifest
from chaincode_support.maintenance.progress import Progress
from chaincode_support.maintenance.report import Report
from chaincode_support.maintenance.scratch import (
    check_room,
    make_durable,
    put_in_place,
    remove,
    scratch_folder,
)
from chaincode_support.maintenance.verification import verify
from chaincode_support.volume import LEDGER, ORDERING, ChannelFiles, claimed


def restore(
    backup: Path, volume: Path, channels: Sequence[str], progress: Progress, *, force: bool
) -> list[Report]:
    """Put channels of a backup, all if none is named, onto a volume.

    No service may work on them there. They are copied beside where they go, compared with the
    manifest and verified; only when all of them are sound they take their places. Their verdicts
    are taken as they are: the release that made the backup may have judged otherwise. `force`
    allows to replace what is there.

    Raises MaintenanceError, LedgerInUse and OSError.
    """
    manifest = Manifest.read(backup)
    for channel in channels:
        if channel not in manifest.channels:
            raise NothingThere(
                f"The backup {backup} has no channel {channel}: it has "
                f"{', '.join(manifest.channels)}."
            )
    chosen = list(channels or manifest.channels)
    with ExitStack() as stack:
        places = [ChannelFiles.on(volume, channel) for channel in chosen]
        for files in places:
            stack.enter_context(claimed(files, "`selvedge ledger restore`"))
            _check_free(files, force=force)
        for part in (LEDGER, ORDERING):
            recorded = [getattr(manifest.channels[channel], part) for channel in chosen]
            check_room(volume / part, sum(file.bytes for file in recorded))
        copies: list[ChannelFiles] = []
        reports: list[Report] = []
        for files in places:
            copies.append(_copy(files, backup, manifest, stack, progress))
            reports.append(_verify(copies[-1], backup, progress))
        for files, copy in zip(places, copies, strict=True):
            # A crash in between leaves no ledger, or none that is of another chain than its log:
            # it is made again from the log that is there.
            remove(files.ledger)
            put_in_place(copy.ordering, files.ordering)
            put_in_place(copy.ledger, files.ledger)
    return reports


def _check_free(files: ChannelFiles, *, force: bool) -> None:
    files.check_links()
    there = [str(file) for file in (files.ledger, files.ordering) if file.exists()]
    if there and not force:
        raise InTheWay(
            f"Channel {files.channel} is there already ({' and '.join(there)}): restore onto an "
            "empty volume, or replace it with --force."
        )


def _copy(
    files: ChannelFiles, backup: Path, manifest: Manifest, stack: ExitStack, progress: Progress
) -> ChannelFiles:
    """Copy a channel's files beside the places where they go, as the manifest has them."""
    recorded = manifest.channels[files.channel]
    original = ChannelFiles.on(backup, files.channel)
    parts = [
        (original.ledger, files.ledger, recorded.ledger),
        (original.ordering, files.ordering, recorded.ordering),
    ]
    copied: list[Path] = []
    for source, target, expected in parts:
        changed = NoBackup(
            f"{source} is not as it was when the backup was made: use another backup."
        )
        # Before it is copied: what took its place may have no end.
        try:
            found = source.stat()
        except FileNotFoundError:
            raise NoBackup(f"{source} is missing: use another backup.") from None
        if not stat.S_ISREG(found.st_mode) or found.st_size != expected.bytes:
            raise changed
        check_room(target.parent, expected.bytes)
        copy = stack.enter_context(scratch_folder(target.parent)) / target.name
        shutil.copyfile(source, copy)
        copy.chmod(0o600)
        make_durable(copy)
        what = f"{files.channel}: {target.parent.name}/{target.name}"
        if CopiedFile.of(copy, what, progress) != expected:
            raise changed
        copied.append(copy)
    return ChannelFiles(files.channel, *copied)


def _verify(copy: ChannelFiles, backup: Path, progress: Progress) -> Report:
    report = verify(copy, progress, judge=False)
    if not report.sound:
        first = report.findings[0]
        raise NoBackup(
            f"Channel {copy.channel} of the backup {backup} is damaged ({first.what}): use another "
            "backup. Nothing was restored."
        )
    return report
