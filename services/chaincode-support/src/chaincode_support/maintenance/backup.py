"""Copies of channels, also of those that a service works on."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from chaincode_support.ledger.store import connect
from chaincode_support.maintenance.errors import Damaged, InTheWay, MaintenanceError
from chaincode_support.maintenance.manifest import CopiedChannel, CopiedFile, Manifest
from chaincode_support.maintenance.progress import Progress
from chaincode_support.maintenance.scratch import check_room, make_durable
from chaincode_support.maintenance.stored_blocks import LedgerBlocks, OrderedBlocks, StoredBlocks
from chaincode_support.volume import (
    LEDGER,
    ORDERING,
    ChannelFiles,
    make_folder,
    missing_folders,
    remove_folders,
)
from selvedge_common.files import make_private_folder, sync_folder

# Pages copied from one report of progress to the next.
_PAGES = 1024


def back_up(
    volume: Path, channels: Sequence[str], folder: Path, progress: Progress
) -> dict[str, CopiedChannel]:
    """Copy channels of a volume into an empty or new folder, laid out as a volume is.

    A service may work on them meanwhile. Raises MaintenanceError, LedgerUnusable and OSError; then
    the folder is as it was. That of a process that was killed has no manifest, and is no backup.
    """
    originals = [ChannelFiles.on(volume, channel) for channel in channels]
    for files in originals:
        files.check_links()
    _check_free(folder, volume)
    with _filling(folder):
        check_room(folder, sum(map(_size, originals)))
        copied = {
            files.channel: _copy(files, ChannelFiles.on(folder, files.channel), progress)
            for files in originals
        }
        release = version("selvedge-chaincode-support")
        Manifest(datetime.now(UTC).isoformat(timespec="seconds"), release, copied).write(folder)
    return copied


def _check_free(folder: Path, volume: Path) -> None:
    for part in (volume / LEDGER, volume / ORDERING):
        # What lies there is taken for channels, or is in the way of their files.
        if folder.resolve().is_relative_to(part.resolve()):
            raise InTheWay(
                f"{folder} is in {part}, where the channels themselves are: name a folder "
                "somewhere else for the backup, best on another disk."
            )
    if folder.exists() and any(folder.iterdir()):
        raise InTheWay(f"{folder} is not empty: name a new folder for the backup.")


@contextmanager
def _filling(folder: Path) -> Iterator[None]:
    """Make a folder, or take an empty one; what fails leaves nothing in it."""
    missing = missing_folders(folder)
    try:
        make_private_folder(folder)
        yield
    except BaseException:
        for part in (LEDGER, ORDERING):
            shutil.rmtree(folder / part, ignore_errors=True)
        remove_folders(missing)
        raise


def _copy(files: ChannelFiles, copy: ChannelFiles, progress: Progress) -> CopiedChannel:
    looked_at = files.ledger
    try:
        # In this order the ledger is not ahead of the ordering log. What it has not got is
        # committed by the service that starts with the copy.
        with closing(LedgerBlocks.of(files)) as ledger:
            _copy_file(ledger, copy.ledger, files.channel, progress)
        looked_at = files.ordering
        with closing(OrderedBlocks.of(files)) as log:
            _copy_file(log, copy.ordering, files.channel, progress)
        looked_at = copy.ledger
        with closing(LedgerBlocks.of(copy)) as ledger, closing(OrderedBlocks.of(copy)) as log:
            blocks, ordered = ledger.height(), log.height()
            last_block_hash = ledger.hash(blocks - 1).hex() if blocks else ""
    except Damaged as error:
        raise MaintenanceError(
            f"Channel {files.channel} cannot be copied, for {looked_at} is not sound: {error}. "
            "`verify` says what is wrong, and `rebuild` mends one of its files from the other."
        ) from error
    return CopiedChannel(
        blocks,
        ordered,
        last_block_hash,
        CopiedFile.of(copy.ledger, f"{files.channel}: ledger", progress),
        CopiedFile.of(copy.ordering, f"{files.channel}: ordering log", progress),
    )


def _copy_file(stored: StoredBlocks, target: Path, channel: str, progress: Progress) -> None:
    def report(_: int, remaining: int, total: int) -> None:
        progress(f"{channel}: pages of the {stored.what}", total - remaining, total)

    make_folder(target.parent)
    try:
        with closing(connect(target)) as copy, stored.at_one_moment():
            # A commit between two steps would begin the copy anew, were it not of one moment.
            stored.height()
            stored.connection.backup(copy, pages=_PAGES, progress=report)
            # In one piece, so that it can be read where nothing can be written.
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise MaintenanceError(
            f"{stored.file} could not be copied to {target}: {error}. Check the room and the "
            "health of both disks."
        ) from error
    make_durable(target)
    sync_folder(target.parent)


def _size(files: ChannelFiles) -> int:
    return sum(file.stat().st_size for file in (files.ledger, files.ordering) if file.exists())
