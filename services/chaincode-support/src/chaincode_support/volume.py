"""A channel's files on the volume, and who works on them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from chaincode_support.ledger import LedgerInUse, LedgerUnusable
from chaincode_support.ledger.store import CHANNEL_NAME, channel_file
from selvedge_common.files import make_private_folder

LEDGER, ORDERING = "ledger", "ordering"
"""The volume's folders."""


@dataclass(frozen=True)
class ChannelFiles:
    """Where a channel lies.

    Attributes:
        channel: its name.
        ledger: the SQLite file of its blocks, state, history and indexes.
        ordering: the SQLite file of its ordered blocks.
    """

    channel: str
    ledger: Path
    ordering: Path

    @classmethod
    def on(cls, volume: Path, channel: str) -> Self:
        """The files of a channel, whether they exist or not.

        Raises LedgerUnusable for what is no channel name.
        """
        return cls(
            channel,
            channel_file(volume / LEDGER, channel),
            channel_file(volume / ORDERING, channel),
        )

    @property
    def lock(self) -> Path:
        """What a process holds that works on the two."""
        return self.ordering.with_suffix(".lock")

    def check_links(self) -> None:
        """Raises LedgerUnusable where a file is a link to nothing, as of a disk that is not there:
        that is no lost file, and must not be replaced by a new one."""
        for file in (self.ledger, self.ordering):
            if _leads_nowhere(file):
                raise LedgerUnusable(
                    f"{file} is a link to {os.readlink(file)}, where there is nothing: mount the "
                    "disk that it leads to, or remove the link, and the file counts as lost."
                )


def channels_on(volume: Path) -> list[str]:
    """The channels that have files on the volume, in alphabetical order."""
    return sorted(
        {
            file.stem
            for folder in (LEDGER, ORDERING)
            for file in (volume / folder).glob("*.sqlite")
            if CHANNEL_NAME.fullmatch(file.stem) and (file.is_file() or _leads_nowhere(file))
        }
    )


def _leads_nowhere(file: Path) -> bool:
    return file.is_symlink() and not file.exists()


class Claim:
    """A channel's files for one process alone; the system lets go when it ends, however it ends."""

    def __init__(self, files: ChannelFiles, who: str) -> None:
        """Take it. `who` is what others are told of its holder.

        Raises LedgerInUse when another process has it, LedgerUnusable where the volume cannot be
        written.
        """
        self._lock = _lock(files)
        while not _is_at(self._lock, files.lock):
            # Whoever had it has removed it, since it was opened here.
            os.close(self._lock)
            self._lock = _lock(files)
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{who}\n".encode())

    def release(self) -> None:
        """Let others have it; harmless when repeated."""
        lock, self._lock = self._lock, -1
        if lock != -1:
            os.close(lock)


def _lock(files: ChannelFiles) -> int:
    """Open a channel's lock, and lock it. Raises LedgerInUse, LedgerUnusable."""
    try:
        make_folder(files.lock.parent)
        lock = os.open(files.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_to_owner(files.lock)
    except OSError as error:
        raise LedgerUnusable(
            f"Channel {files.channel} cannot be worked on: {files.lock} cannot be written "
            f"({error.strerror}). Make the volume writable for this user."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 100).decode(errors="replace").strip()
        os.close(lock)
        raise LedgerInUse(
            f"Channel {files.channel} is in use by {holder or 'another process'}, which holds "
            f"{files.lock}: stop that first."
        ) from None
    return lock


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def claimed(files: ChannelFiles, who: str) -> Iterator[None]:
    """A channel's files for this process alone, and the folders for them.

    Folders and a lock that were not there before are gone again when what is done meanwhile fails.
    Raises what Claim raises, and OSError.
    """
    missing = missing_folders(files.ledger.parent) + missing_folders(files.lock.parent)
    new = not files.lock.exists()
    try:
        make_folder(files.ledger.parent)
        claim = Claim(files, who)
        try:
            yield
        except BaseException:
            if new:  # while it is held: nobody else can have it
                files.lock.unlink(missing_ok=True)
            raise
        finally:
            claim.release()
    except BaseException:
        remove_folders(missing)
        raise


def missing_folders(folder: Path) -> list[Path]:
    """The folder and those around it, as far as they do not exist; the innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def remove_folders(folders: Sequence[Path]) -> None:
    """Remove those that are empty, of folders in the order of `missing_folders`."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def make_folder(folder: Path) -> None:
    """Make one of a volume's folders, and the volume, where they are missing. Raises OSError."""
    for missing in reversed([each for each in (folder, folder.parent) if not each.exists()]):
        make_private_folder(missing)
        give_to_owner(missing)


def give_to_owner(made: Path) -> None:
    """Let what root has made for a service belong to whom the folder around it belongs to, which is
    the service's user. Raises OSError."""
    if os.geteuid() == 0:
        owner = made.parent.stat()
        os.chown(made, owner.st_uid, owner.st_gid)
