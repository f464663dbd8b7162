"""Inputs to begin with: each way that a client can behave, and some that it should not."""

import gzip
from collections.abc import Iterator

from common.tests.comm.native.fuzz.target import HALF_CLOSE, PAUSE, RAW, RESUME, TURN
from common.tests.comm.native.raw_client import message, request_fields
from hpack import Encoder

from selvedge_common.comm.native import frames
from selvedge_common.comm.native.frames import Setting

_END = frames.END_HEADERS | frames.END_STREAM
_WHOLE = b"\0\0"
"""Read whole, after the preface."""


def seeds() -> Iterator[bytes]:
    """Each as the fuzzer takes it."""
    yield b""
    for method in ("Echo", "Chat", "Hold", "Late", "Send", "Stream", "Idle"):
        body = b"3*9000" if method == "Send" else b"hello"
        call = _headers(1, f"/test.Raw/{method}") + _data(1, message(body), end=True)
        yield _WHOLE + call
        yield b"\1\0" + call  # byte by byte
        yield b"\7\0" + call + _turns(3) + _reset(1)
        yield _WHOLE + _event(PAUSE) + call + _turns(4) + _event(RESUME) + _turns(2)
        yield _WHOLE + call + _turns(2) + _event(HALF_CLOSE)
        yield (
            _WHOLE
            + _settings({Setting.INITIAL_WINDOW_SIZE: 3})
            + call
            + _turns(2)
            + (_frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\5") * 4)
            + _settings({Setting.INITIAL_WINDOW_SIZE: 65535})
        )
        yield _WHOLE + call[: len(call) // 2]
    packed = ("grpc-encoding", "gzip")
    for content in (gzip.compress(b"x" * 5000), gzip.compress(b"x" * 50_000), b"no gzip"):
        call = _headers(1, "/test.Raw/Stream", packed) + _data(1, message(content, 1), end=True)
        yield _WHOLE + call
    yield _WHOLE + _headers(1, "/test.Raw/Stream") + _data(1, message(b"x") * 100) + _turns(2)
    yield _WHOLE + _headers(1, "/test.Raw/Late") + _data(1, message(b"") * 400) + _turns(2)
    for number in (1, 3, 5):
        yield b"\x40\0" + b"".join(
            _headers(each, "/test.Raw/Late") + _data(each, message(b"x" * 6000) + b"\0\0")
            for each in range(1, number + 1, 2)
        )
    narrow = _WHOLE + _settings({Setting.INITIAL_WINDOW_SIZE: 10})
    opened = _frame(frames.WINDOW_UPDATE, 0, 1, b"\0\1\0\0")
    for method in ("Chat", "Stream"):
        # Refused while an answer is on its way, and then there is more of it.
        begun = _headers(1, f"/test.Raw/{method}") + _turns(2) + _data(1, message(b"x" * 100))
        refused = begun + _turns(4) + _data(1, b"\0\xff\xff\xff\xff")
        yield narrow + refused + _data(1, b"\0\0") + _data(1, message(b"") * 5) + opened
        # More waits than may.
        yield narrow + begun + _data(1, message(b"x" * 7000) * 2) * 4 + opened + _turns(4)
    block = _block("/test.Raw/Echo", ("grpc-timeout", "1n"), ("a-bin", "AAA"), ("b", "c"))
    yield (
        _WHOLE
        + _frame(frames.HEADERS, 0, 1, block[:9])
        + _frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[9:])
        + _turns(3)
    )
    padded = frames.PADDED | frames.WITH_PRIORITY | _END
    yield _WHOLE + _frame(frames.HEADERS, padded, 1, b"\2\0\0\0\0\1" + block + b"\0\0")
    yield (
        _WHOLE
        + _headers(1, "/test.Raw/Chat")
        + _frame(frames.DATA, frames.PADDED, 1, b"\3" + message(b"1") + b"\0\0\0")
        + _headers(1, "", ("x", "y"), end=True)
    )
    yield _WHOLE + _headers(1, "/a.B/C", ("content-length", "7")) + _data(1, message(b"1"))
    yield _WHOLE + _headers(1, "/a.B/C", (":method", "GET"), end=True)
    yield _WHOLE + b"".join(_headers(n, "/test.Raw/Hold") + _reset(n) for n in range(1, 21, 2))
    for frame in (
        _frame(frames.PING, 0, 0, b"12345678"),
        _settings({setting: 100 for setting in Setting if setting is not Setting.ENABLE_PUSH}),
        _settings({Setting.HEADER_TABLE_SIZE: 0, Setting.MAX_FRAME_SIZE: 16384}),
        _frame(frames.PRIORITY, 0, 3, b"\0\0\0\1\1"),
        _frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
        _frame(frames.GOAWAY, 0, 0, b"\0" * 8),
        _frame(0xB, 0, 0, b"unknown"),
        _frame(frames.PUSH_PROMISE, 0, 1, b"\0" * 8),
    ):
        yield _WHOLE + frame
        yield _WHOLE + _headers(1, "/test.Raw/Hold") + frame * 8
    yield b"\0\x80" + _raw(b"GET / HTTP/1.1\r\n\r\n")
    yield b"\0\x80" + _raw(b"\x16\x03\x01\0\0")
    yield b"\0\x80" + _raw(frames.PREFACE + frames.window_update(0, 1))
    yield b"\5\x80" + _raw(frames.PREFACE + frames.settings({}) + b"\0\0\5\0\0\0\0\0\1")
    for fields in (
        b"\x82\x87\x84",
        b"\x20\x3f\xe1\x1f\x82",
        b"\x40\1a\1b\xbe\xbe",
        b"\xff\xff\xff",
    ):
        yield _WHOLE + _frame(frames.HEADERS, _END, 1, fields)


def _block(path: str, *extra: tuple[str, str]) -> bytes:
    return Encoder().encode(list(request_fields(path, *extra)), huffman=False)


def _headers(number: int, path: str, *extra: tuple[str, str], end: bool = False) -> bytes:
    block = _block(path, *extra) if path else Encoder().encode(list(extra))
    return _frame(frames.HEADERS, _END if end else frames.END_HEADERS, number, block)


def _data(number: int, payload: bytes, *, end: bool = False) -> bytes:
    return _frame(frames.DATA, frames.END_STREAM if end else 0, number, payload)


def _reset(number: int) -> bytes:
    return _frame(frames.RST_STREAM, 0, number, b"\0\0\0\x08")


def _settings(values: dict[Setting, int]) -> bytes:
    return _frame(frames.SETTINGS, 0, 0, frames.settings(values)[frames.HEAD_BYTES :])


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return bytes((kind, flags, number)) + len(payload).to_bytes(2) + payload


def _raw(content: bytes) -> bytes:
    return bytes((RAW,)) + len(content).to_bytes(2) + content


def _event(operation: int) -> bytes:
    return bytes((operation,))


def _turns(count: int) -> bytes:
    return _event(TURN) * count
