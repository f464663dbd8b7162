"""When a block is cut, by count and by bytes."""

import pytest

from chaincode_support.ordering.cutter import BatchSize, Cutter


def cutter(**limits: int) -> Cutter[bytes]:
    size = {"max_messages": 3, "preferred_bytes": 10, **limits}
    return Cutter(BatchSize(**size), len)


def test_the_last_of_the_count_cuts() -> None:
    cutting = cutter()
    assert cutting.add(b"a") == []
    assert cutting.add(b"b") == []
    assert cutting.add(b"c") == [[b"a", b"b", b"c"]]
    assert cutting.pending == 0


def test_what_would_exceed_the_preferred_bytes_begins_the_next_block() -> None:
    cutting = cutter()
    assert cutting.add(b"123456") == []
    assert cutting.add(b"12345") == [[b"123456"]]
    assert cutting.cut() == [b"12345"]


def test_exactly_the_preferred_bytes_still_fit() -> None:
    cutting = cutter()
    assert cutting.add(b"12345") == []
    assert cutting.add(b"12345") == []
    assert cutting.pending == 2


@pytest.mark.parametrize("before", [[], [b"a"]])
def test_a_message_above_the_preferred_bytes_is_alone(before: list[bytes]) -> None:
    cutting = cutter()
    for message in before:
        cutting.add(message)
    large = b"x" * 11
    assert cutting.add(large) == [batch for batch in (before, [large]) if batch]
    assert cutting.pending == 0


def test_cutting_nothing_gives_nothing() -> None:
    assert cutter().cut() == []
