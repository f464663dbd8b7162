"""Progress is told now and then, and each step's end always."""

import io

import pytest

from chaincode_support.maintenance.progress import ProgressLine


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "seconds", "expected"),
    [
        (io.StringIO(), 2.0, "blocks: 3 of 6\nblocks: 6 of 6\n"),
        (
            Terminal(),
            0.06,
            "".join(f"\r\x1b[Kblocks: {done} of 6" for done in (1, 3, 5, 6)) + "\n",
        ),
    ],
    ids=["file", "terminal"],
)
def test_not_every_block_is_a_line(stream: io.StringIO, seconds: float, expected: str) -> None:
    clock = Clock()
    progress = ProgressLine(stream, clock)
    for done in range(1, 7):
        clock.now += seconds
        progress("blocks", done, 6)
    assert stream.getvalue() == expected
