"""The names of chaincodes that have registered, kept when the peer restarts.

A proposal waits for a chaincode that was here before and is refused at once for any other. After a
restart every chaincode has yet to dial in again, so the peer must not have forgotten them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from selvedge_common.logs import get_logger

log = get_logger("chaincode")

# Plenty for any peer; it keeps a stranger on a plaintext listener from growing memory and file by
# registering new names for ever.
MAX_NAMES = 4096


class KnownNames:
    """At most MAX_NAMES names, those that registered last; in `file`, if there is one."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._names: dict[str, None] = dict.fromkeys(_read(file)[-MAX_NAMES:] if file else ())

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._names))

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str) -> None:
        """Remember the name; the file is written when it is a new one.

        A file that cannot be written is no reason to refuse a chaincode: it is logged.
        """
        known = name in self._names
        self._names.pop(name, None)
        self._names[name] = None
        if known:
            return
        if len(self._names) > MAX_NAMES:
            del self._names[next(iter(self._names))]
        if self._file is not None:
            _write(self._file, list(self._names))


def _read(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        _warn(file, error)
        return []


def _write(file: Path, names: list[str]) -> None:
    # Replaced as a whole, so that it is never half of one; not synced, as a power cut that loses
    # the newest name costs a proposal its wait, and a sync would hold up the event loop.
    new = file.with_suffix(".new")
    try:
        new.write_text("".join(f"{name}\n" for name in names))
        new.replace(file)
    except OSError as error:
        _warn(file, error)


def _warn(file: Path, error: OSError) -> None:
    log.warning(
        "the names of known chaincodes are not kept: after a restart proposals do not wait for "
        "these to come back; mend the file or its folder",
        file=str(file),
        error=str(error),
    )
