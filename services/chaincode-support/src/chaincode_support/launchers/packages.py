"""The folder of packages: folders that an operator drops in, and Fabric's files, which may also be
installed over the wire.

A folder holds `metadata.json`, and `connection.json` for a chaincode that serves; it is known by
the hash of these two. A file is Fabric's `.tar.gz`, known by its hash as in
core/chaincode/persistence/persistence.go of Fabric 2.5, and kept under the same name.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from chaincode_support.chaincode.metrics import limit_refusals
from chaincode_support.launchers import metrics
from chaincode_support.launchers.archive import Bounds, open_archive
from chaincode_support.launchers.errors import (
    BrokenPackage,
    DroppedPackage,
    PackageTooLarge,
    UnknownPackage,
)
from chaincode_support.launchers.package import CONNECTION, METADATA, Package, read_package
from selvedge_common.files import make_private_folder, write_atomically
from selvedge_common.logs import get_logger
from selvedge_common.quoting import printable

log = get_logger("chaincode.packages")

_ARCHIVE = ".tar.gz"
SHOWN_BROKEN = 100
"""So many packages that cannot be used are shown one by one; the others are counted."""

_PLACE_CHARACTERS = 500
_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A package that cannot be used.

    Attributes:
        name: its chaincode's, or if that cannot be read, of its folder or file.
        place: its folder or file.
        reason: why it cannot be used.
    """

    name: str
    place: Path
    reason: str

    def __str__(self) -> str:
        """The same for the client that calls it and for the list."""
        return f"broken package: {self.reason} (in {printable(str(self.place), _PLACE_CHARACTERS)})"


@dataclass(frozen=True, slots=True)
class Found:
    """What is in the folder.

    Attributes:
        packages: those in use, by the name of their chaincode.
        superseded: those of a name that a newer one has.
        broken: those that cannot be used, the newest first.
    """

    packages: Mapping[str, Package]
    superseded: tuple[Package, ...]
    broken: tuple[Broken, ...]


@dataclass(frozen=True, slots=True)
class PackageBounds:
    """What the folder takes.

    Attributes:
        archive: what one package may take.
        packages: how many there may be.
    """

    archive: Bounds
    packages: int


class Packages:
    """The packages of one folder; a call at a time, and each may take as long as the disk does.

    Args:
        folder: where they lie; it is made where there is none.
        bounds: what it takes.
        templates: what stands for `{{.name}}` in a connection.json.
    """

    def __init__(self, folder: Path, bounds: PackageBounds, templates: Mapping[str, str]) -> None:
        self._folder = folder
        self._bounds = bounds
        self._templates = templates
        self._entries: dict[str, _Entry] = {}
        self._trouble = ""
        self._told: dict[Path, str] = {}
        self._told_count = 0

    def look(self) -> Found:
        """Read what is new or has changed. What cannot be read is told of once, in the log, and
        what it was before stays in use."""
        try:
            stamps = self._stamps()
            self._trouble = ""
        except OSError as error:
            self._tell_trouble(str(error))
            return self._found()
        before, self._entries = self._entries, {}
        for name, stamp in stamps.items():
            full = len(self._entries) >= self._bounds.packages
            # With room another time it looks different, and is read.
            seen = (*stamp, None) if full else stamp
            known = before.get(name)
            if known is None or known.stamp != seen:
                known = self._open(name, seen, known.package if known else None, full=full)
            self._entries[name] = known
        found = self._found()
        metrics.packages.set(len(found.packages) + len(found.superseded))
        metrics.broken_packages.set(len(found.broken))
        self._tell_broken(found.broken)
        return found

    def install(self, data: bytes) -> Package:
        """Keep a package in Fabric's form. It is in use from the next look on, also when it was
        there before and another one had taken its place.

        Raises:
            BrokenPackage: it cannot be used.
            OSError: it cannot be kept.
        """
        digest = hashlib.sha256(data).hexdigest()
        metadata, connection = open_archive(data, self._bounds.archive)
        # Where it will lie is not known before its label is.
        package = read_package(metadata, connection, digest, self._folder / "-", self._templates)
        file = self._folder / f"{package.label}.{digest}{_ARCHIVE}"
        package = replace(package, place=file)
        if file.exists():
            os.utime(file)
            return package
        self._make_folder()
        # Not as they were at the last look: others may have been installed since.
        if len(self._names()) >= self._bounds.packages:
            raise self._too_many()
        write_atomically(file, data, 0o600)
        return package

    def remove(self, package_id: str) -> None:
        """Take a package out that was installed.

        Raises:
            UnknownPackage, DroppedPackage: there is nothing to take out.
            OSError: it cannot be taken out.
        """
        packages = (entry.package for entry in self._entries.values())
        package = next((each for each in packages if each and each.id == package_id), None)
        if package is None:
            raise UnknownPackage(
                f"there is no package {printable(package_id, 300)} here: `selvedge chaincode list` "
                "shows those that there are"
            )
        if package.place.is_dir():
            raise DroppedPackage(
                f"package {package_id} was not installed but put into {package.place}: remove that "
                "folder on the peer's disk"
            )
        package.place.unlink(missing_ok=True)

    def _stamps(self) -> dict[str, _Stamp]:
        """What looks like a package, and by what a change of it is seen. Raises OSError."""
        self._make_folder()
        stamps: dict[str, _Stamp] = {}
        for name in self._names():
            place = self._folder / name
            if place.is_dir():
                stamps[name] = (_stamp(place / METADATA), _stamp(place / CONNECTION))
            else:
                stamps[name] = (_stamp(place),)
        return stamps

    def _names(self) -> list[str]:
        """Folders, and what is called as Fabric's files are. Raises OSError."""
        return [
            name
            for name in sorted(os.listdir(self._folder))
            if not name.startswith(".")
            and (name.endswith(_ARCHIVE) or (self._folder / name).is_dir())
        ]

    def _make_folder(self) -> None:
        # One that is there is the operator's, and so is who may enter it.
        if not self._folder.exists():
            make_private_folder(self._folder)

    def _tell_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning(
                "the folder chaincode.packages cannot be read: packages stay as they were; make it "
                "readable",
                folder=str(self._folder),
                error=trouble,
            )

    def _tell_broken(self, broken: tuple[Broken, ...]) -> None:
        """Each once, and of many only how many there are."""
        for each in broken[:SHOWN_BROKEN]:
            if self._told.get(each.place) != each.reason:
                self._told[each.place] = each.reason
                log.warning(
                    "package cannot be used",
                    package=printable(str(each.place), _PLACE_CHARACTERS),
                    reason=each.reason,
                )
        if len(broken) > SHOWN_BROKEN and len(broken) != self._told_count:
            log.warning(
                "more packages cannot be used than are told one by one",
                folder=str(self._folder),
                count=len(broken),
            )
        self._told_count = len(broken)
        places = {each.place for each in broken}
        self._told = {place: told for place, told in self._told.items() if place in places}

    def _open(self, name: str, stamp: _Stamp, before: Package | None, *, full: bool) -> _Entry:
        place = self._folder / name
        try:
            if full:
                raise self._too_many()
            if not name.isprintable():
                raise BrokenPackage("its name has characters that do not print: give it another")
            package = self._open_folder(place) if place.is_dir() else self._open_file(place)
        except BrokenPackage as error:
            return _broken(place, stamp, before, str(error), error.chaincode)
        except OSError as error:
            return _broken(place, stamp, before, str(error.strerror), None)
        except Exception as error:
            # Whatever it is, the other packages are there to be looked at.
            log.exception("package not read", package=printable(str(place), _PLACE_CHARACTERS))
            reason = f"it could not be read ({type(error).__name__}); the peer's log has more"
            return _broken(place, stamp, before, reason, None)
        log.info(
            "package found", package=package.id, chaincode=package.name, version=package.version
        )
        return _Entry(stamp, package, None)

    def _open_folder(self, folder: Path) -> Package:
        metadata, connection = (self._contents(folder / name) for name in (METADATA, CONNECTION))
        if metadata is None:
            raise BrokenPackage(f"there is no {METADATA} in it")
        digest = hashlib.sha256(metadata)
        if connection is not None:
            digest.update(hashlib.sha256(connection).digest())
        return read_package(metadata, connection, digest.hexdigest(), folder, self._templates)

    def _open_file(self, file: Path) -> Package:
        data = self._contents(file) or b""
        metadata, connection = open_archive(data, self._bounds.archive)
        digest = hashlib.sha256(data).hexdigest()
        return read_package(metadata, connection, digest, file, self._templates)

    def _contents(self, file: Path) -> bytes | None:
        limit = self._bounds.archive.size
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                raise BrokenPackage(f"{file.name} is no file: put a regular one there")
            # Should it be something else by now, nobody waits for it: a FIFO may never be written.
            opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(opened, "rb") as reader:
            data = reader.read(limit + 1)
        if len(data) > limit:
            limit_refusals.labels("packageBytes").inc()
            raise PackageTooLarge(
                f"{file.name} is larger than {limit} bytes, the limit of "
                "chaincode.limits.packageBytes"
            )
        return data

    def _too_many(self) -> PackageTooLarge:
        limit_refusals.labels("packages").inc()
        return PackageTooLarge(
            f"there are {self._bounds.packages} packages already, the limit of "
            "chaincode.limits.packages: remove one, or raise the limit"
        )

    def _found(self) -> Found:
        packages: dict[str, Package] = {}
        superseded: list[Package] = []
        entries = sorted(self._entries.values(), key=lambda entry: entry.age, reverse=True)
        for package in (entry.package for entry in entries if entry.package is not None):
            if package.name in packages:
                superseded.append(package)
            else:
                packages[package.name] = package
        broken = tuple(entry.broken for entry in entries if entry.broken is not None)
        return Found(packages, tuple(superseded), broken)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A folder or file that is a package.

    Attributes:
        stamp: how it looked when it was read.
        package: what it is, or was when it could be read last.
        broken: why it cannot be read now.
    """

    stamp: _Stamp
    package: Package | None
    broken: Broken | None

    @property
    def age(self) -> tuple[int, str]:
        """When it was put there or changed last; the place decides between equals."""
        changed = max((part[0] for part in self.stamp if part is not None), default=0)
        return changed, str(self.package.place) if self.package else ""


def _broken(
    place: Path, stamp: _Stamp, before: Package | None, reason: str, name: str | None
) -> _Entry:
    # The name of a folder is text that prints, or nobody could ask for it.
    name = name or (before.name if before else printable(place.name))
    return _Entry(stamp, before, Broken(name, place, reason))


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None  # reading it will say what is wrong
    return found.st_mtime_ns, found.st_size, found.st_ino
