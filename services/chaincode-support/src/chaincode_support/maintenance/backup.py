"""Copies of channels, also of those that a service works on."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from chaincode_support.ledger.store import connect
from chaincode_support.maintenance.errors import Damaged, InTheWay, MaintenanceError
from chaincode_support.maintenance.manifest import CopiedChannel, CopiedFile, Manifest
from chaincode_support.maintenance.progress import Progress
from chaincode_support.maintenance.scratch import check_room, make_durable
from chaincode_support.maintenance.stored_blocks import LedgerBlocks, OrderedBlocks, StoredBlocks
from chaincode_support.volume import ChannelFiles, make_folder
from selvedge_common.files import make_private_folder, sync_folder

# Pages copied from one report of progress to the next.
_PAGES = 1024


def back_up(
    volume: Path, channels: Sequence[str], folder: Path, progress: Progress
) -> dict[str, CopiedChannel]:
    """Copy channels of a volume into an empty or new folder, laid out as a volume is.

    A service may work on them meanwhile. Raises MaintenanceError and OSError; then the folder has
    no manifest, and is no backup.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InTheWay(f"{folder} is not empty: name a new folder for the backup.")
    make_private_folder(folder)
    check_room(folder, sum(_size(ChannelFiles.on(volume, channel)) for channel in channels))
    copied = {
        channel: _copy(ChannelFiles.on(volume, channel), ChannelFiles.on(folder, channel), progress)
        for channel in channels
    }
    release = version("selvedge-chaincode-support")
    Manifest(datetime.now(UTC).isoformat(timespec="seconds"), release, copied).write(folder)
    return copied


def _copy(files: ChannelFiles, copy: ChannelFiles, progress: Progress) -> CopiedChannel:
    try:
        # In this order the ledger is not ahead of the ordering log. What it has not got is
        # committed by the service that starts with the copy.
        with closing(LedgerBlocks.of(files)) as ledger:
            _copy_file(ledger, copy.ledger, files.channel, progress)
        with closing(OrderedBlocks.of(files)) as log:
            _copy_file(log, copy.ordering, files.channel, progress)
        with closing(LedgerBlocks.of(copy)) as ledger, closing(OrderedBlocks.of(copy)) as log:
            blocks, ordered = ledger.height(), log.height()
            last_block_hash = ledger.hash(blocks - 1).hex() if blocks else ""
    except Damaged as error:
        raise MaintenanceError(
            f"Channel {files.channel} cannot be copied: its files {files.ledger} and "
            f"{files.ordering} are not sound ({error}); `verify` says what is wrong with them."
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
