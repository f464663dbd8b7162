"""Fabric's form of a package, as its tools make it, and as somebody would who means harm."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from chaincode_support.launchers.archive import Bounds, open_archive
from chaincode_support.launchers.errors import BrokenPackage, PackageTooLarge

BOUNDS = Bounds(size=64 * 1024, files=20)


def tar(
    files: dict[str, bytes],
    *entries: tarfile.TarInfo,
    format: int = tarfile.USTAR_FORMAT,
    mtime: float = 0,
) -> bytes:
    """An archive with these files, and these entries without content."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=format) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), mtime
            archive.addfile(entry, io.BytesIO(content))
        for entry in entries:
            archive.addfile(entry)
    return written.getvalue()


def package(code: bytes, outer: Callable[[dict[str, bytes]], bytes] = tar) -> bytes:
    files = {"metadata.json": b"{}", "code.tar.gz": gzip.compress(code)}
    return gzip.compress(outer(files))


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def refusals(limit: str) -> float:
    sample = REGISTRY.get_sample_value("chaincode_limit_refusals_total", {"limit": limit})
    return sample or 0.0


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_package_is_read_whatever_tool_made_it(format: int, prefix: str) -> None:
    code = tar(
        {
            # A date to the fraction of a second, and a long name, make headers of their own.
            f"{prefix}META-INF/{'x' * 150}.json": b"index",
            f"{prefix}connection.json": b"there",
        }
        if format != tarfile.USTAR_FORMAT
        else {f"{prefix}connection.json": b"there"},
        special(f"{prefix}META-INF", tarfile.DIRTYPE),
        format=format,
        mtime=1.5,
    )
    assert open_archive(package(code), BOUNDS) == (b"{}", b"there")


def test_only_the_connection_at_the_top_counts() -> None:
    code = tar({"deep/connection.json": b"there", "src/main.go": b"package main"})
    assert open_archive(package(code), BOUNDS) == (b"{}", None)


@pytest.mark.parametrize("missing", ["metadata.json", "code.tar.gz"])
def test_a_package_without_its_files_is_refused(missing: str) -> None:
    files = {"metadata.json": b"{}", "code.tar.gz": gzip.compress(tar({}))}
    del files[missing]
    with pytest.raises(BrokenPackage, match=f"the package holds no {missing}: make it of"):
        open_archive(gzip.compress(tar(files)), BOUNDS)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the package is cut off"),
        (b"no gzip", "the package is no gzipped tar"),
        (gzip.compress(b"no tar" * 1000), "the package is no tar"),
        (package(tar({}))[:-20], "the package is cut off"),
        (gzip.compress(tar({"metadata.json": b"x" * 2000})[:1024]), "is damaged: its entry"),
        (package(b"no tar" * 1000), "code.tar.gz is no tar"),
    ],
)
def test_what_is_no_package_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(BrokenPackage, match=sentence):
        open_archive(data, BOUNDS)


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "..", "a/.."])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(BrokenPackage, match=r"has an entry '.*', which leads out of it"):
        open_archive(package(tar({name: b""})), BOUNDS)


@pytest.mark.parametrize(
    "entry",
    [
        special("connection.json", tarfile.SYMTYPE, "/etc/passwd"),
        special("connection.json", tarfile.LNKTYPE, "metadata.json"),
        special("connection.json", tarfile.FIFOTYPE),
        special("connection.json", tarfile.CHRTYPE),
        special("connection.json", tarfile.BLKTYPE),
        special("connection.json", tarfile.GNUTYPE_SPARSE),
    ],
)
def test_links_devices_and_files_with_holes_are_refused(entry: tarfile.TarInfo) -> None:
    for data in (
        package(tar({}, entry)),
        package(tar({}), lambda files: tar(files, entry)),
    ):
        with pytest.raises(BrokenPackage, match="that is neither file nor folder"):
            open_archive(data, BOUNDS)


def test_a_size_below_nothing_is_refused() -> None:
    header = tarfile.TarInfo("connection.json")
    header.size = -512
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(BrokenPackage, match=r"is damaged: .* has 0 of -512 bytes"):
        open_archive(package(bytes(block) * 3), BOUNDS)


@pytest.mark.parametrize("what", ["package", "code.tar.gz"])
def test_a_bomb_is_not_unpacked(what: str) -> None:
    before = refusals("packageBytes")
    bomb = tar({"connection.json": bytes(BOUNDS.size)})
    data = package(bomb) if what == "code.tar.gz" else gzip.compress(bomb)
    assert len(data) < 1000
    with pytest.raises(PackageTooLarge, match=f"{what} is larger than 65536 bytes, packed or"):
        open_archive(data, BOUNDS)
    assert refusals("packageBytes") == before + 1


def test_a_package_that_is_large_before_it_is_unpacked_is_refused() -> None:
    with pytest.raises(PackageTooLarge, match="the package is larger than"):
        open_archive(package(tar({})) + os.urandom(BOUNDS.size), BOUNDS)


def test_entries_are_counted() -> None:
    before = refusals("packageFiles")
    code = tar({f"{number}": b"" for number in range(21)})
    with pytest.raises(PackageTooLarge, match="has more than 20 entries, the limit of chaincode"):
        open_archive(package(code), BOUNDS)
    assert refusals("packageFiles") == before + 1
