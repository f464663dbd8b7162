"""HTTP/2 by hand, as far as a client needs it that breaks off in the middle."""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = 8
_INITIAL_WINDOW_SIZE = 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    head = len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)
    return head + payload


def hello(window: int = 65535) -> bytes:
    """What a client begins with; `window` is what each stream may send to it."""
    setting = _INITIAL_WINDOW_SIZE.to_bytes(2) + window.to_bytes(4)
    return PREFACE + frame(SETTINGS, 0, 0, setting)


def call(stream: int, path: str) -> bytes:
    """The beginning of a call."""
    return frame(HEADERS, END_HEADERS, stream, header_block(path))


def header_block(path: str) -> bytes:
    """A call's headers, each of them spelt out."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "127.0.0.1",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())


def message(stream: int, content: bytes, *, last: bool = False) -> bytes:
    """A gRPC message in one frame."""
    return frame(DATA, END_STREAM if last else 0, stream, prefix(len(content)) + content)


def prefix(size: int) -> bytes:
    """What stands before a gRPC message of this size."""
    return b"\0" + size.to_bytes(4)


def cancel(stream: int) -> bytes:
    """The end of a call that is not wanted any more."""
    return frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4))


def _text(value: str) -> bytes:
    # Shorter than 127 bytes, so that its length is one.
    return bytes((len(value),)) + value.encode()
