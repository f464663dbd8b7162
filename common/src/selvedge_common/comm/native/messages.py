"""gRPC's messages within a stream's bytes: a flag, a length, and the message."""

import struct
import zlib
from collections.abc import Sequence

import grpc

from selvedge_common.comm.errors import StatusError
from selvedge_common.comm.native.frames import DATA

PREFIX_BYTES = 5
_PREFIX = struct.Struct(">BL")
_HEAD = struct.Struct(">HBBBLBL")
_FREELY_INFLATED = 1024 * 1024  # bytes that a message may have once decompressed, however small
_MAX_RATIO = 100  # above that, how many times what was sent
_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class MessageReader:
    """Puts the messages of one stream together.

    Args:
        limit: the largest message taken, also once it is decompressed.
        encoding: what messages marked as compressed are compressed with.
        setting: what to raise for larger messages, as a sentence names it.

    Attributes:
        refusal: why nothing more is taken; None as long as something is.
    """

    __slots__ = ("_buffer", "_encoding", "_limit", "_need", "_setting", "refusal")

    def __init__(self, limit: int, encoding: str, setting: str = "the limit") -> None:
        self._setting = setting
        self._limit = limit
        self._encoding = encoding
        self._buffer: bytearray | None = None
        self._need = PREFIX_BYTES
        self.refusal: StatusError | None = None

    @property
    def held_bytes(self) -> int:
        """What there is of a message that is not whole yet."""
        return len(self._buffer) if self._buffer else 0

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The messages that are whole now. Sets `refusal` when the next one is not taken."""
        buffer = self._buffer
        if buffer is None:
            size = len(data) - PREFIX_BYTES
            # The usual case: one frame is one message.
            if size >= 0 and not data[0] and int.from_bytes(data[1:5]) == size <= self._limit:
                return (data[PREFIX_BYTES:],)
            return self._split(data)
        # One growing buffer: a list of what came in small pieces would take many times its size.
        buffer += data
        if len(buffer) < self._need:
            return ()
        self._buffer = None
        return self._split(bytes(buffer))

    def _split(self, data: bytes) -> Sequence[bytes]:
        messages: list[bytes] = []
        at, end = 0, len(data)
        self._need = PREFIX_BYTES
        try:
            while end - at >= PREFIX_BYTES:
                flag, size = _PREFIX.unpack_from(data, at)
                self._check(flag, size)
                after = at + PREFIX_BYTES + size
                if after > end:
                    self._need = PREFIX_BYTES + size
                    break
                message = data[at + PREFIX_BYTES : after]
                messages.append(self._decompress(message) if flag else message)
                at = after
        except StatusError as error:
            self.refusal = error
            return messages
        if at < end:
            self._buffer = bytearray(data[at:])
        return messages

    def _check(self, flag: int, size: int) -> None:
        if size > self._limit:
            raise self._too_large(f"A message of {size} bytes", self._limit)
        if flag > 1 or (flag and self._encoding == "identity"):
            raise StatusError(
                grpc.StatusCode.INTERNAL,
                f"A message has the flag {flag} but the call names no compression for it; "
                "send grpc-encoding, or do not compress.",
            )

    def _decompress(self, message: bytes) -> bytes:
        inflate = zlib.decompressobj(_WINDOW_BITS[self._encoding])
        # The loop waits meanwhile: what takes long has to be long to send as well.
        limit = min(self._limit, max(_FREELY_INFLATED, _MAX_RATIO * len(message)))
        try:
            plain = inflate.decompress(message, limit + 1)
        except zlib.error as error:
            raise _not_compressed(self._encoding) from error
        if len(plain) > limit:
            raise self._too_large(f"A message that is compressed to {len(message)} bytes", limit)
        if not inflate.eof or inflate.unused_data:
            raise _not_compressed(self._encoding)
        return plain

    def _too_large(self, what: str, limit: int) -> StatusError:
        return StatusError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"{what} is above this listener's limit of {limit} bytes for receiving; send less, or "
            f"raise {self._setting}.",
        )


def _not_compressed(encoding: str) -> StatusError:
    return StatusError(
        grpc.StatusCode.INTERNAL,
        f"A message that is marked as compressed is not {encoding}; send what grpc-encoding says.",
    )


def message_head(stream: int, size: int, compressed: bool = False) -> bytes:
    """What stands before a message of so many bytes that is a frame by itself: that frame's head,
    and its prefix."""
    framed = size + PREFIX_BYTES
    return _HEAD.pack(framed >> 8, framed & 0xFF, DATA, 0, stream, compressed, size)


def prefix(size: int, compressed: bool = False) -> bytes:
    """What stands before a message of so many bytes."""
    return _PREFIX.pack(compressed, size)


def compress(message: bytes, encoding: str) -> bytes:
    """A message compressed by one of the encodings of `MessageReader`."""
    deflate = zlib.compressobj(wbits=_WINDOW_BITS[encoding])
    return deflate.compress(message) + deflate.flush()
