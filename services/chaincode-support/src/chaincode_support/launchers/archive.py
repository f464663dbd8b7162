"""Fabric's form of a package, a gzipped tar with another one in it, read without trusting it.

Follows core/chaincode/persistence/chaincode_package.go of Fabric 2.5. Nothing is ever written to
where a name in it says: the two files that count are read from memory, within bounds.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from chaincode_support.chaincode.metrics import limit_refusals
from chaincode_support.launchers.errors import BrokenPackage, PackageTooLarge
from chaincode_support.launchers.package import CONNECTION, METADATA
from selvedge_common.quoting import quoted

CODE = "code.tar.gz"

_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
# Dates to the nanosecond, long names and the like, of the entry that follows.
_EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
# zlib's number for gzip with its header.
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a package may take.

    Attributes:
        size: bytes of the package, and of either archive once it is unpacked.
        files: entries of either archive.
    """

    size: int
    files: int


def open_archive(data: bytes, bounds: Bounds) -> tuple[bytes, bytes | None]:
    """The contents of metadata.json, and of connection.json where there is one.

    Raises BrokenPackage: the archive is no such package, has entries other than files and folders
    or names that lead out of it, or is beyond the bounds.
    """
    outer = _read(data, "the package", bounds)
    for name in (METADATA, CODE):
        if name not in outer:
            raise BrokenPackage(
                f"the package holds no {name}: make it of {METADATA} and {CODE}, as "
                "`peer lifecycle chaincode package` does"
            )
    inner = _read(outer[CODE], CODE, bounds)
    return outer[METADATA], inner.get(CONNECTION)


def _read(data: bytes, source: str, bounds: Bounds) -> dict[str, bytes]:
    """The files of an archive that count, by name."""
    found: dict[str, bytes] = {}
    entries = _entries(_unpack(data, source, bounds), source)
    for count, (header, content) in enumerate(entries, start=1):
        if count > bounds.files:
            limit_refusals.labels("packageFiles").inc()
            raise PackageTooLarge(
                f"{source} has more than {bounds.files} entries, the limit of "
                "chaincode.limits.packageFiles"
            )
        if header.type in _EXTENSIONS:
            continue
        name = _checked_name(header, source)
        if name in (METADATA, CODE, CONNECTION) and header.type != tarfile.DIRTYPE:
            found[name] = content
    return found


def _entries(archive: bytes, source: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The headers of a tar, each with what follows it.

    TarFile would do this as well, and follow each header's word about others, as links and holes
    are; a hostile one keeps it busy for long.
    """
    block, position = tarfile.BLOCKSIZE, 0
    while archive[position : position + block].strip(b"\0"):
        try:
            header = tarfile.TarInfo.frombuf(
                archive[position : position + block], "utf-8", "surrogateescape"
            )
        except (tarfile.HeaderError, ValueError) as error:
            raise BrokenPackage(f"{source} is no tar: {error}") from error
        position += block
        content = archive[position : position + max(header.size, 0)]
        if len(content) != header.size:
            raise BrokenPackage(
                f"{source} is damaged: its entry {quoted(header.name)} has {len(content)} of "
                f"{header.size} bytes"
            )
        yield header, content
        position += -(-header.size // block) * block


def _checked_name(header: tarfile.TarInfo, source: str) -> str:
    parts = [part for part in header.name.split("/") if part not in ("", ".")]
    if header.name.startswith("/") or ".." in parts:
        raise BrokenPackage(f"{source} has an entry {quoted(header.name)}, which leads out of it")
    if header.type not in _PLAIN:
        raise BrokenPackage(
            f"{source} has an entry {quoted(header.name)} that is neither file nor folder: pack "
            "plain files only"
        )
    return "/".join(parts)


def _unpack(data: bytes, source: str, bounds: Bounds) -> bytes:
    _check_size(len(data), source, bounds)
    unpacking = zlib.decompressobj(_GZIP)
    try:
        # One byte more, to tell what fits from what goes on.
        unpacked = unpacking.decompress(data, bounds.size + 1)
    except zlib.error as error:
        raise BrokenPackage(f"{source} is no gzipped tar: {error}") from error
    _check_size(len(unpacked), source, bounds)
    if not unpacking.eof:
        raise BrokenPackage(f"{source} is cut off: send all of it")
    return unpacked


def _check_size(size: int, source: str, bounds: Bounds) -> None:
    if size > bounds.size:
        limit_refusals.labels("packageBytes").inc()
        raise PackageTooLarge(
            f"{source} is larger than {bounds.size} bytes, packed or unpacked, the limit of "
            "chaincode.limits.packageBytes; a package for a chaincode that serves holds its "
            "address and little more"
        )
