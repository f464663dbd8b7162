"""A stranger's text as our sentences show it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selvedge_common.quoting import printable, quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Org1MSP", "'Org1MSP'"),
        ("it's", '"it\'s"'),
        ("\x1b[2J\r\nlog line", r"'\x1b[2J\r\nlog line'"),
        ("left\u202eright", r"'left\u202eright'"),
        ("\ud800", r"'\ud800'"),
        (b"caf\xc3\xa9 \xff", r"'café \\xff'"),
        ("x" * 101, f"'{'x' * 100}'…"),
        (b"x" * 1000, f"'{'x' * 100}'…"),
    ],
)
def test_text_is_quoted_escaped_and_cut(text: str | bytes, shown: str) -> None:
    assert quoted(text) == shown


def test_text_that_shows_where_it_ends_needs_no_quotation_marks() -> None:
    assert printable("OU=client,CN=user1\n") == r"OU=client,CN=user1\n"
    assert printable("x" * 11, limit=10) == "xxxxxxxxxx…"


@given(st.text() | st.binary(), st.integers(0, 30))
def test_what_is_shown_is_printable_and_bounded(text: str | bytes, limit: int) -> None:
    for shown in (quoted(text, limit), printable(text, limit)):
        assert shown.isprintable()
        assert len(shown) <= 10 * limit + 3
