"""Header blocks: requests as gRPC means them, and responses (RFC 9113 section 8, gRPC over HTTP/2).

HPACK itself is the `hpack` library's. What is sent is never put into the dynamic table, so a
response's block is the same bytes on every connection and is made once.
"""

import base64
import binascii
import functools
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import grpc
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hpack.exceptions import HPACKError, OversizedHeaderListError

from selvedge_common.comm.native.frames import ConnectionFault, ErrorCode, StreamFault

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]


class Metadatum(NamedTuple):
    """An entry of metadata, as grpcio's handlers know it."""

    key: str
    value: str | bytes


# The decoded list may be this many times what is served, before its connection ends for it: up to
# there only its call is refused.
HARD_FACTOR = 4
_ENTRY_COST = 32  # what a field counts beside its bytes (RFC 9113, section 6.5.2)
_CACHED_BLOCKS = 8  # a client has few kinds of calls, and no client may have much kept for it
_CACHED_BYTES = 2048
# More than two changes of the table's size (RFC 7541, section 4.2), which cost much to decode.
_MANY_CHANGES = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_CONNECTION_FIELDS = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
# What gRPC speaks of with itself; handlers see the rest.
_TRANSPORT_FIELDS = frozenset(
    (
        *(b"te", b"content-type", b"content-length", b"host"),
        *(b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding"),
    )
)
_TIMEOUT = re.compile(rb"[0-9]{1,8}[HMSmun]")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


@dataclass(frozen=True, slots=True)
class Request:
    """The headers that open a stream.

    Attributes:
        method: of HTTP; gRPC uses POST alone.
        path: `/package.Service/Method`.
        content_type: as sent, empty if it was not.
        content_length: as sent.
        timeout: seconds until the client's deadline; None without one.
        encoding: how messages marked as compressed are compressed.
        accepts: those of our encodings that the client understands.
        metadata: what the handler is to see.
        size: of the whole list, each field counting 32 bytes more than it holds.
    """

    method: bytes
    path: str
    content_type: bytes
    content_length: int | None
    timeout: float | None
    encoding: str
    accepts: frozenset[str]
    metadata: Metadata
    size: int

    @property
    def is_grpc(self) -> bool:
        """Whether this asks for a gRPC method."""
        return self.method == b"POST" and (
            self.content_type in (b"application/grpc", b"application/grpc+proto")
            or self.content_type.startswith((b"application/grpc+", b"application/grpc;"))
        )


class HeaderReader:
    """Decodes the header blocks of one connection.

    Args:
        max_list_bytes: what is served; a block of more than four times that is not even decoded.
    """

    def __init__(self, max_list_bytes: int) -> None:
        self._max_list_bytes = max_list_bytes
        self._decoder = Decoder(HARD_FACTOR * max_list_bytes)
        # Clients repeat themselves: a block that left the table as it was means the same again,
        # as long as the table stays so.
        self._known: dict[bytes, Request] = {}

    def request(self, block: bytes) -> Request:
        """The request that a block opens.

        Raises:
            ConnectionFault: the block cannot be decoded, or is far too large.
            StreamFault: it is no well-formed request.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        size, entries, newest = self._table()
        fields = self._decode(block)
        size_now, entries_now, newest_now = self._table()
        unchanged = size_now == size and entries_now == entries and newest_now is newest
        if not unchanged:
            self._known.clear()
        request = _request(fields)
        # By what it decodes to: a few bytes can name a large entry of the table many times.
        if unchanged and request.size <= _CACHED_BYTES:
            if len(self._known) == _CACHED_BLOCKS:
                self._known.clear()
            self._known[block] = request
        return request

    def trailers(self, block: bytes) -> int:
        """Take in trailers, which mean nothing to gRPC servers; gives their size. Raises as
        `request` does, and StreamFault for more than is served."""
        self._known.clear()
        size = 0
        for name, value in self._decode(block):
            size += len(name) + len(value) + _ENTRY_COST
            if size > self._max_list_bytes:
                raise StreamFault(ErrorCode.ENHANCE_YOUR_CALM, "Trailers take too many bytes.")
            if name.startswith(b":"):
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "Trailers have a pseudo-header.")
            _check_field(name, value)
        return size

    def skip(self, block: bytes) -> None:
        """Take in a block that nobody wants: it may change the table. Raises ConnectionFault."""
        self._known.clear()
        self._decode(block)

    def _table(self) -> tuple[int, int, object]:
        """What no change of the table leaves as it was."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return table.maxsize, len(entries), entries[0] if entries else None

    def _decode(self, block: bytes) -> Sequence[tuple[bytes, bytes]]:
        if _MANY_CHANGES.match(block):
            raise ConnectionFault(
                ErrorCode.COMPRESSION_ERROR,
                "A header block begins with more changes of the table's size than are of use.",
            )
        try:
            return self._decoder.decode(block, raw=True)  # type: ignore[return-value]
        except OversizedHeaderListError as error:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"The headers of a call take more than {self._decoder.max_header_list_size} bytes.",
                limit="max_header_list_bytes",
            ) from error
        # What else it meets in bytes that are no header block is not all wrapped by the library.
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFault(
                ErrorCode.COMPRESSION_ERROR, "A header block cannot be decoded."
            ) from error


def _request(fields: Sequence[tuple[bytes, bytes]]) -> Request:
    pseudo: dict[bytes, bytes] = {}
    known: dict[bytes, bytes] = {}
    metadata: list[tuple[str, str | bytes]] = []
    size = 0
    regular = False
    for name, value in fields:
        size += len(name) + len(value) + _ENTRY_COST
        if name.startswith(b":"):
            if regular or name in pseudo or name not in _PSEUDO:
                raise _malformed("Its pseudo-headers are unknown, repeated or not in front.")
            pseudo[name] = value
            continue
        regular = True
        _check_field(name, value)
        if name in _TRANSPORT_FIELDS:
            known[name] = value
        else:
            entries = _read_metadata(name, value)
            size += _ENTRY_COST * (len(entries) - 1)  # of a list, each counts
            metadata += entries
    path = pseudo.get(b":path", b"")
    if not path or b":method" not in pseudo or b":scheme" not in pseudo:
        raise _malformed("It lacks :method, :scheme or :path.")
    if known.get(b"te", b"trailers") != b"trailers":
        raise _malformed("Its te is not trailers.")
    return Request(
        pseudo[b":method"],
        path.decode("latin-1"),
        known.get(b"content-type", b""),
        _content_length(known.get(b"content-length")),
        _timeout(known.get(b"grpc-timeout")),
        known.get(b"grpc-encoding", b"identity").decode("latin-1"),
        frozenset(ENCODINGS).intersection(
            known.get(b"grpc-accept-encoding", b"").decode("latin-1").replace(" ", "").split(",")
        ),
        tuple(metadata),
        size,
    )


_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))


def _check_field(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise _malformed("A header's name has characters that are not allowed.")
    if name in _CONNECTION_FIELDS:
        raise _malformed("It has a header that belongs to HTTP/1.1 connections.")
    if _BAD_VALUE.search(value):
        raise _malformed("A header's value has characters that are not allowed.")


def _malformed(what: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, f"A request is malformed: {what}")


def _content_length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise _malformed("Its content-length is no number.")
    return int(value)


def _timeout(value: bytes | None) -> float | None:
    if value is None:
        return None
    if not _TIMEOUT.fullmatch(value):
        raise _malformed("Its grpc-timeout is no duration.")
    return int(value[:-1]) * _UNITS[chr(value[-1])]


def _read_metadata(name: bytes, value: bytes) -> Sequence[tuple[str, str | bytes]]:
    key = name.decode("ascii")
    if not key.endswith("-bin"):
        return (Metadatum(key, value.decode("latin-1")),)
    try:
        # Several values may come as one list.
        return [
            Metadatum(key, base64.b64decode(part + b"=" * (-len(part) % 4), validate=True))
            for part in value.replace(b" ", b"").split(b",")
        ]
    except binascii.Error as error:
        raise _malformed("Binary metadata is not base64.") from error


_encoder = Encoder()


def encode(fields: tuple[tuple[str, str], ...]) -> bytes:
    """The header block of these fields, which means the same on every connection."""
    return _encoder.encode([NeverIndexedHeaderTuple(*field) for field in fields])


@functools.lru_cache(maxsize=64)
def _constant(fields: tuple[tuple[str, str], ...]) -> bytes:
    """The same, kept; for what says nothing of a call."""
    return encode(fields)


ENCODINGS = ("identity", "deflate", "gzip")
"""What messages may be compressed with, both ways."""
_RESPONSE = (
    (":status", "200"),
    ("content-type", "application/grpc"),
    ("grpc-accept-encoding", ",".join(ENCODINGS)),
)


def response(encoding: str = "", metadata: Iterable[tuple[str, str | bytes]] = ()) -> bytes:
    """The header block that begins a response."""
    extra = (("grpc-encoding", encoding),) if encoding else ()
    own = _written(metadata)
    return encode(_RESPONSE + extra + own) if own else _constant(_RESPONSE + extra)


def trailers(
    code: grpc.StatusCode,
    details: str = "",
    metadata: Iterable[tuple[str, str | bytes]] = (),
    *,
    alone: bool = False,
) -> bytes:
    """The header block that ends a response with a status.

    Args:
        alone: nothing else of the response was sent.
    """
    fields = (*(_RESPONSE if alone else ()), ("grpc-status", str(code.value[0])))
    own = _written(metadata)
    if details:
        own = (("grpc-message", urllib.parse.quote(details, safe=_MESSAGE_SAFE)), *own)
    return encode(fields + own) if own else _constant(fields)


# Everything printable but the percent sign stands for itself in grpc-message.
_MESSAGE_SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def plain_response(status: int, body: bytes) -> bytes:
    """The header block of an answer to somebody who does not speak gRPC."""
    return encode(
        (
            (":status", str(status)),
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", str(len(body))),
        )
    )


def _written(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[str, str], ...]:
    """Metadata as header fields.

    Raises:
        ValueError: a name or a value cannot be one.
    """
    fields = []
    for key, value in metadata:
        name = key.encode()
        if not _NAME.fullmatch(name) or (key.startswith("grpc-") and key != _RICH_STATUS):
            raise ValueError(f"The metadata key {key!r} cannot be sent; use a-z, 0-9, - _ and .")
        if key.endswith("-bin"):
            raw = value.encode() if isinstance(value, str) else value
            fields.append((key, base64.b64encode(raw).decode().rstrip("=")))
            continue
        text = value.decode("ascii") if isinstance(value, bytes) else value
        if not text.isascii() or not text.isprintable() or text != text.strip():
            raise ValueError(f"The value of the metadata {key!r} is no ASCII; use a -bin key.")
        fields.append((key, text))
    return tuple(fields)


_RICH_STATUS = "grpc-status-details-bin"
