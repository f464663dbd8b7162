"""Messages and allowances by themselves."""

import gzip
import tracemalloc
import zlib

import grpc
import pytest
from common.tests.comm.native.raw_client import message

from selvedge_common.comm.native import messages
from selvedge_common.comm.native.allowance import Allowance
from selvedge_common.comm.native.messages import MessageReader

MESSAGES = [b"", b"a", b"x" * 1000, b"", b"y" * 70_000, b"z"]


@pytest.mark.parametrize("size", [1, 4, 5, 6, 7, 999, 16384, 1 << 20])
def test_messages_come_out_whole_however_they_arrive(size: int) -> None:
    body = b"".join(map(message, MESSAGES))
    reader = MessageReader(70_000, "identity")
    received: list[bytes] = []
    for at in range(0, len(body), size):
        received += reader.feed(body[at : at + size])
        assert reader.held_bytes <= 70_005
    assert received == MESSAGES
    assert reader.held_bytes == 0
    assert reader.refusal is None


def test_bytes_of_a_message_that_is_not_whole_are_held() -> None:
    reader = MessageReader(100, "identity")
    for held in range(1, 15):
        assert not reader.feed(message(b"0123456789")[held - 1 : held])
        assert reader.held_bytes == held
    assert list(reader.feed(b"9")) == [b"0123456789"]
    assert reader.held_bytes == 0


def test_messages_before_one_that_is_refused_are_given() -> None:
    reader = MessageReader(10, "identity")
    assert list(reader.feed(message(b"1") + message(b"x" * 11))) == [b"1"]
    assert reader.refusal is not None
    assert reader.refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_and_plain_messages_may_alternate(encoding: str) -> None:
    reader = MessageReader(100_000, encoding)
    body = b"".join(
        message(messages.compress(content, encoding), 1) + message(content) for content in MESSAGES
    )
    assert list(reader.feed(body)) == [content for content in MESSAGES for _ in range(2)]


def test_what_is_compressed_is_what_others_read() -> None:
    assert gzip.decompress(messages.compress(b"hello", "gzip")) == b"hello"
    assert zlib.decompress(messages.compress(b"hello", "deflate")) == b"hello"


def test_bomb_is_unpacked_no_further_than_the_limit() -> None:
    bomb = message(gzip.compress(b"x" * 50_000_000), 1)
    reader = MessageReader(100_000, "gzip")
    tracemalloc.start()
    try:
        assert not reader.feed(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert reader.refusal is not None
    assert reader.refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_message_as_large_as_the_limit_is_taken_compressed_too() -> None:
    reader = MessageReader(1000, "gzip")
    assert list(reader.feed(message(gzip.compress(b"x" * 1000), 1))) == [b"x" * 1000]
    assert not reader.feed(message(gzip.compress(b"x" * 1001), 1))
    assert reader.refusal is not None


def test_allowance_is_spent_earned_and_comes_back_with_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    left = Allowance(10, 2)
    assert left.spend(10)
    assert not left.spend(1)
    left.earn(1)
    assert left.spend(0)
    assert not left.spend(2)
    now += 2.0  # four more
    assert left.spend(2)
    assert left.spend(0)
    assert not left.spend(1)
    now += 1000.0  # ten at most
    assert left.spend(10)
    assert not left.spend(1)


def test_allowance_cannot_be_earned_beyond_what_it_was() -> None:
    left = Allowance(10, 0)
    left.earn(1000)
    assert left.spend(10)
    assert not left.spend(1)
