"""Files that are whole or absent, and folders that only their owner enters."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def make_private_folder(folder: Path) -> None:
    """Makes a folder (and what is missing above it) that holds keys: mode 0700.

    Raises:
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o777 != 0o700:
        # A volume's own folder may belong to root (Kubernetes' fsGroup); the keys in it are 0600
        # anyway.
        with contextlib.suppress(PermissionError):
            folder.chmod(0o700)


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replaces a file in one step, durably, so that a reader sees the old content or the new.

    Args:
        path: the file; its folder exists.
        data: the whole content.
        mode: permissions, set before the first byte is written.

    Raises:
        OSError: the folder cannot be written, or the disk fails.
    """
    begun = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    descriptor = os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # The process's umask may have taken bits away that the mode asks for.
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(begun, path)
    except BaseException:
        begun.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes durable which names a folder holds: a power cut may undo a rename before that.

    Raises:
        OSError: the disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
