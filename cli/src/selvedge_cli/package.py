"""Chaincode packages, in the form that Fabric 2.x has for chaincode as a service.

A package is a gzipped tar of metadata.json and code.tar.gz, and that one of connection.json and, if
there are indexes, META-INF/.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from selvedge_cli.errors import CommandError

METADATA, CONNECTION, INDEXES = "metadata.json", "connection.json", "META-INF"
_CODE = "code.tar.gz"
_FOR_EXAMPLE = {
    METADATA: '{"type": "ccaas", "label": "mycc"}',
    CONNECTION: '{"address": "localhost:9999", "tls_required": false}',
}
_NEEDED = {METADATA: ("type", "label"), CONNECTION: ("address",)}


def read_package(path: Path) -> bytes:
    """The package in a file, or of the files in a folder.

    Args:
        path: a package, or a folder with metadata.json and connection.json, and META-INF/ where
            the chaincode has indexes. The same files make the same bytes, and so the same package
            id, wherever they lie and whoever packs them when.

    Raises:
        CommandError: there is no such thing there; what a file holds is left to the peer.
    """
    if path.is_dir():
        return _pack(path)
    content = _read(path)
    if not content.startswith(b"\x1f\x8b"):
        raise CommandError(
            f"{path} is no package, which is a .tar.gz: give one, or a folder with {METADATA} and "
            f"{CONNECTION}"
        )
    return content


def _pack(folder: Path) -> bytes:
    metadata, connection = (_read_object(folder / name) for name in (METADATA, CONNECTION))
    indexes = sorted(file for file in (folder / INDEXES).rglob("*") if file.is_file())
    code = [(CONNECTION, connection)]
    code += [(file.relative_to(folder).as_posix(), _read(file)) for file in indexes]
    return _archive([(METADATA, metadata), (_CODE, _archive(code))])


def _archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A gzipped tar of files without owner or time."""
    archived = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=archived, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return archived.getvalue()


def _read_object(file: Path) -> bytes:
    content = _read(file)
    try:
        keys = json.loads(content).keys()
    except (ValueError, AttributeError, RecursionError) as error:
        raise CommandError(
            f"{file} holds no JSON object ({error}): write it as {_FOR_EXAMPLE[file.name]}"
        ) from None
    missing = [key for key in _NEEDED[file.name] if key not in keys]
    if missing:
        raise CommandError(
            f"{file} has no {' and no '.join(missing)}: write it as {_FOR_EXAMPLE[file.name]}"
        )
    return content


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        hint = f": write it as {_FOR_EXAMPLE[file.name]}" if file.name in _FOR_EXAMPLE else ""
        raise CommandError(f"there is no {file}{hint}") from None
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from error
