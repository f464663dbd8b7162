"""What a chaincode prints, on its way into the log."""

import os
import sys
from collections.abc import Iterator

import pytest
import structlog
from launching import StartLaunching
from prometheus_client import REGISTRY
from structlog.testing import CapturingLogger

from chaincode_support.launchers import output
from chaincode_support.launchers.errors import LaunchFailed
from chaincode_support.launchers.output import Output, OutputBounds


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[CapturingLogger]:
    """The calls of the log, which goes nowhere else."""
    capturing = CapturingLogger()
    names: list[str] = []

    def get_logger(name: str, *, bounded: bool) -> structlog.stdlib.BoundLogger:
        assert not bounded  # chaincode.limits.outputLines is the only bound
        names.append(name)
        return capturing  # type: ignore[return-value]  # it takes the same calls

    monkeypatch.setattr(output, "get_logger", get_logger)
    yield capturing
    assert set(names) == {"chaincode.mycc"}


def lines(logged: CapturingLogger) -> list[str]:
    return [call.args[0] for call in logged.calls if call.method_name == "info"]


def dropped() -> float:
    sample = REGISTRY.get_sample_value(
        "chaincode_output_lines_dropped_total", {"chaincode": "mycc"}
    )
    return sample or 0.0


async def test_lines_are_logged_one_by_one_however_they_come(
    logged: CapturingLogger, clock: Clock
) -> None:
    printed = Output("mycc", OutputBounds(line=100, lines=100), clock)
    for part in (b"fir", b"st\nsec", b"ond\r\n\n\nthird\nfourth"):
        printed.data_received(part)
    assert lines(logged) == ["first", "second", "third"]
    printed.connection_lost(None)
    assert lines(logged) == ["first", "second", "third", "fourth"]
    assert printed.last_lines == "second | third | fourth"
    assert printed.ended.is_set()


async def test_a_long_line_is_cut_and_what_does_not_print_is_escaped(
    logged: CapturingLogger, clock: Clock
) -> None:
    printed = Output("mycc", OutputBounds(line=10, lines=100), clock)
    for _ in range(1000):
        printed.data_received(b"x" * 1000)
    printed.data_received(b"\n0123456789\n\x1b[36mblue\x1b[0m\n\x07\xff\n\xe2\x82\xac\n")
    assert lines(logged) == ["xxxxxxxxxx…", "0123456789", "blue", r"\x07\xff", "€"]


async def test_what_comes_too_fast_is_counted_and_its_end_remembered(
    logged: CapturingLogger, clock: Clock
) -> None:
    before = dropped()
    printed = Output("mycc", OutputBounds(line=100, lines=2), clock)
    printed.data_received(b"1\n2\n3\n4\nfi")
    printed.data_received(b"ve\n6\n7")
    assert lines(logged) == ["1", "2"]
    assert printed.last_lines == "4 | five | 6"
    clock.now = 1.0
    printed.data_received(b"th\n8\n9\n")
    assert lines(logged) == ["1", "2", "7th", "8"]
    (warning,) = (call for call in logged.calls if call.method_name == "warning")
    assert warning.kwargs == {"lines": 4, "limit": 2}
    assert "chaincode.limits.outputLines" in warning.args[0]
    printed.connection_lost(None)
    assert dropped() - before == 5


async def test_a_flood_neither_stops_the_chaincode_nor_fills_the_log(
    start: StartLaunching, logged: CapturingLogger
) -> None:
    before = dropped()
    program = """
import sys
for _ in range(200):
    sys.stdout.write("flood\\n" * 10000)
sys.exit("the end")
"""
    launching = await start(output=OutputBounds(line=1024, lines=100))
    await launching.drop(
        "mycc",
        {"type": "process", "label": "mycc", "command": [sys.executable, "chaincode.py"]},
        chaincode=program,
    )
    with pytest.raises(LaunchFailed, match=r"ended with status 1; .*flood \| the end; correct it"):
        await launching.peer.execute("mycc")
    kept = len(lines(logged))
    assert kept + dropped() - before == 2_000_001
    assert 100 <= kept < 10_000
    assert os.listdir(launching.folder) == ["mycc"]
