"""Frames by themselves."""

import pytest

from selvedge_common.comm.native import frames
from selvedge_common.comm.native.frames import (
    ConnectionFault,
    ErrorCode,
    FrameReader,
    Setting,
    StreamFault,
)

FRAMES = [
    (frames.DATA, frames.END_STREAM, 1, b"hello"),
    (frames.HEADERS, frames.END_HEADERS, 3, b""),
    (frames.SETTINGS, 0, 0, b"\0\4\0\0\0\1"),
    (0xFE, 0xFF, frames.MAX_STREAM, b"x" * 16384),
]


@pytest.mark.parametrize("size", [1, 2, 8, 9, 10, 100, 1 << 20])
def test_frames_come_out_whole_however_they_arrive(size: int) -> None:
    sent = b"".join(frames.frame(*each) for each in FRAMES)
    reader = FrameReader()
    received: list[tuple[int, int, int, bytes]] = []
    for at in range(0, len(sent), size):
        received += reader.feed(sent[at : at + size])
    assert received == FRAMES


def test_reserved_bit_of_a_stream_is_ignored() -> None:
    sent = frames.frame(frames.DATA, 0, 5 | 1 << 31)
    assert list(FrameReader().feed(sent)) == [(frames.DATA, 0, 5, b"")]


def test_frame_larger_than_allowed_is_refused_by_its_head_alone() -> None:
    reader = FrameReader(20_000)
    assert list(reader.feed(frames.head(20_000, frames.DATA, 0, 1))) == []
    with pytest.raises(ConnectionFault, match="20001 bytes is larger than the 20000") as raised:
        list(FrameReader(20_000).feed(frames.head(20_001, frames.DATA, 0, 1)))
    assert raised.value.code is ErrorCode.FRAME_SIZE_ERROR
    assert raised.value.reason == "frame_size_error"


def test_settings_are_read_as_they_are_written() -> None:
    values = {Setting.INITIAL_WINDOW_SIZE: 2**31 - 1, Setting.MAX_FRAME_SIZE: 16384}
    ((kind, flags, stream, payload),) = FrameReader().feed(frames.settings(values))
    assert (kind, flags, stream) == (frames.SETTINGS, 0, 0)
    assert dict(frames.read_settings(payload)) == values
    with pytest.raises(ConnectionFault, match="cut short"):
        frames.read_settings(payload[:-1])


@pytest.mark.parametrize(
    ("payload", "content"),
    [(b"\0abc", b"abc"), (b"\2abc\0\0", b"abc"), (b"\0", b""), (b"\3\0\0\0", b"")],
)
def test_padding_is_taken_off(payload: bytes, content: bytes) -> None:
    assert frames.unpadded(frames.PADDED, payload) == content
    assert frames.unpadded(0, payload) == payload


@pytest.mark.parametrize("payload", [b"", b"\1", b"\4abc"])
def test_more_padding_than_payload_is_refused(payload: bytes) -> None:
    with pytest.raises(ConnectionFault, match="more padding"):
        frames.unpadded(frames.PADDED, payload)


def test_priority_is_taken_off_and_checked() -> None:
    assert frames.without_priority(1, 0, b"block") == b"block"
    assert frames.without_priority(1, frames.WITH_PRIORITY, b"\0\0\0\3\1block") == b"block"
    with pytest.raises(StreamFault, match="depends on itself"):
        frames.without_priority(3, frames.WITH_PRIORITY, b"\x80\0\0\3\1block")
    with pytest.raises(ConnectionFault, match="not five bytes"):
        frames.without_priority(3, frames.WITH_PRIORITY, b"\0\0\0\1")


@pytest.mark.parametrize("payload", [b"", b"\0\0\0", b"\0\0\0\0\0"])
def test_number_of_another_length_is_refused(payload: bytes) -> None:
    with pytest.raises(ConnectionFault, match="not four bytes"):
        frames.read_u32(payload)


def test_goaway_carries_a_bounded_sentence() -> None:
    ((_, _, _, payload),) = FrameReader().feed(
        frames.goaway(7, ErrorCode.ENHANCE_YOUR_CALM, "ü" * 10_000)
    )
    assert payload[:8] == b"\0\0\0\7\0\0\0\x0b"
    assert len(payload) <= 8 + 1000
