"""HTTP/2 frames (RFC 9113, sections 4 and 6): reading them off a connection, and making them."""

import struct
from collections.abc import Iterator
from enum import IntEnum

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
DEFAULT_FRAME_BYTES = 16384
"""The payload of a frame unless a peer allows more; it cannot allow less."""
DEFAULT_WINDOW = 65535
MAX_WINDOW = 2**31 - 1
MAX_STREAM = 2**31 - 1

_HEAD = struct.Struct(">HBBBL")
_U32 = struct.Struct(">L")
_SETTING = struct.Struct(">HL")
_DEBUG_BYTES = 1000  # of a sentence in GOAWAY


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """What the two ends tell each other about themselves (RFC 9113, section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ConnectionFault(Exception):
    """The client broke the protocol, or a bound, so that its connection has to end.

    Args:
        code: what GOAWAY says.
        sentence: what was wrong; it travels in GOAWAY and goes into the log.
        limit: the bound that was passed, if one was.
        reason: what the metric says; the bound, or else the code's name, unless given.
    """

    def __init__(
        self, code: ErrorCode, sentence: str, *, limit: str = "", reason: str = ""
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.limit = limit
        self.reason = reason or limit or code.name.lower()


class StreamFault(Exception):
    """The client broke the protocol within one stream, which alone has to end."""

    def __init__(self, code: ErrorCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class FrameReader:
    """Cuts the bytes of a connection into frames, however they arrive.

    Args:
        max_payload: the largest payload that this end has allowed.
    """

    __slots__ = ("_max_payload", "_rest")

    def __init__(self, max_payload: int = DEFAULT_FRAME_BYTES) -> None:
        self._max_payload = max_payload
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Give kind, flags, stream and payload of each frame that is complete now.

        What a caller leaves of the iterator is lost: it reads on, or ends the connection.

        Raises:
            ConnectionFault: a frame is larger than allowed.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end, unpack = 0, len(data), _HEAD.unpack_from
        while end - at >= HEAD_BYTES:
            high, low, kind, flags, stream = unpack(data, at)
            size = high << 8 | low
            if size > self._max_payload:
                raise ConnectionFault(
                    ErrorCode.FRAME_SIZE_ERROR,
                    f"A frame of {size} bytes is larger than the {self._max_payload} allowed here.",
                )
            begin = at + HEAD_BYTES
            if end - begin < size:
                break
            at = begin + size
            yield kind, flags, stream & MAX_STREAM, data[begin:at]
        self._rest = data[at:]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return head(len(payload), kind, flags, stream) + payload


def head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """What stands before a payload of so many bytes."""
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream)


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(_SETTING.pack(key, value) for key, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Keys and values of a SETTINGS frame.

    Raises:
        ConnectionFault: the payload is not made of whole settings.
    """
    if len(payload) % _SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "A SETTINGS frame is cut short.")
    return _SETTING.iter_unpack(payload)


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, _U32.pack(increment))


def reset(stream: int, code: ErrorCode) -> bytes:
    """An RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, _U32.pack(code))


def goaway(last_stream: int, code: ErrorCode, sentence: str = "") -> bytes:
    """A GOAWAY frame that says why."""
    payload = _U32.pack(last_stream) + _U32.pack(code) + sentence.encode()[:_DEBUG_BYTES]
    return frame(GOAWAY, 0, 0, payload)


def read_u32(payload: bytes) -> int:
    """The one number that RST_STREAM and WINDOW_UPDATE carry.

    Raises:
        ConnectionFault: there is more or less than that.
    """
    if len(payload) != _U32.size:
        raise ConnectionFault(
            ErrorCode.FRAME_SIZE_ERROR, "An RST_STREAM or WINDOW_UPDATE frame has not four bytes."
        )
    number: int = _U32.unpack(payload)[0]
    return number


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without its padding.

    Raises:
        ConnectionFault: there is more padding than payload.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(
            ErrorCode.PROTOCOL_ERROR, "A frame has more padding than it has bytes."
        )
    return payload[1 : len(payload) - payload[0]]


def without_priority(number: int, flags: int, payload: bytes) -> bytes:
    """The payload of HEADERS without its priority, which nobody uses any more.

    Raises:
        ConnectionFault: it is cut short.
        StreamFault: the stream depends on itself.
    """
    if not flags & WITH_PRIORITY:
        return payload
    check_priority(number, payload[:5])
    return payload[5:]


def check_priority(number: int, priority: bytes) -> None:
    """Check a priority, which is then ignored. Raises as without_priority does."""
    if len(priority) != 5:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "A priority has not five bytes.")
    if _U32.unpack_from(priority)[0] & MAX_STREAM == number:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "A stream depends on itself.")
