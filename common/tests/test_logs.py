"""Levels by Fabric's logging spec, and the two forms of output."""

import contextlib
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import REGISTRY

from selvedge_common import logs


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    before = logs.get_spec()
    yield
    logs.set_spec(before)


@pytest.mark.parametrize(
    ("spec", "normal"),
    [
        ("", "info"),
        ("debug", "debug"),
        ("WARN", "warn"),
        ("info:chaincode=debug:comm.tls,msp=warning", "chaincode=debug:comm.tls=warning:"
         "msp=warning:info"),
        ("a=debug:error", "a=debug:error"),
        (" a , b = fatal : panic", "a=fatal:b=fatal:panic"),
    ],
)  # fmt: skip
def test_spec_is_read_and_told_in_order(spec: str, normal: str) -> None:
    logs.set_spec(spec)
    assert logs.get_spec() == normal
    logs.set_spec(logs.get_spec())
    assert logs.get_spec() == normal


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("comm", "warning"),
        ("comm.tls", "debug"),
        ("comm.tls.handshake", "debug"),
        ("comm.native.server", "warning"),
        ("communication", "error"),
        ("", "error"),
    ],
)
def test_level_of_a_logger_is_its_own_or_the_nearest_above(name: str, level: str) -> None:
    logs.set_spec("error:comm=warning:comm.tls=debug")
    assert logs.get_level(name) == level


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("loud", "has the level 'loud' in 'loud'; use one of debug, info"),
        ("a=loud", "has the level 'loud' in 'a=loud'"),
        ("info:", "has the level '' in ''"),
        ("a=", "has the level '' in 'a='"),
        ("info:debug", "gives the default level twice (info, debug); keep one."),
        ("=debug", "has the logger name '' in '=debug'"),
        ("a,,b=debug", "has the logger name '' in 'a,,b=debug'"),
        ("a.=debug", "has the logger name 'a.' in 'a.=debug'"),
        ("a=b=debug", "has the logger name 'a=b'"),
        (f"{'a' * 101}=debug", "a name has at most 100 characters and 8 levels"),
        (".".join("abcdefghi") + "=debug", "a name has at most 100 characters and 8 levels"),
        ("x" * 10_000, f"spec '{'x' * 100}'…"),
    ],
)
def test_wrong_spec_is_refused_and_changes_nothing(spec: str, sentence: str) -> None:
    logs.set_spec("error:a=debug")
    with pytest.raises(logs.LogSpecError) as refused:
        logs.set_spec(spec)
    assert sentence in str(refused.value)
    assert logs.get_spec() == "a=debug:error"


def test_levels_hold_below_a_logger_and_end_with_the_next_spec() -> None:
    logs.set_spec("warning:comm=debug:comm.tls=error")
    enabled = {
        name: logging.getLogger(name).getEffectiveLevel()
        for name in ("comm", "comm.server", "comm.tls.roots", "msp")
    }
    assert enabled == {
        "comm": logging.DEBUG,
        "comm.server": logging.DEBUG,
        "comm.tls.roots": logging.ERROR,
        "msp": logging.WARNING,
    }
    logs.set_spec("info")
    assert logging.getLogger("comm.tls").getEffectiveLevel() == logging.INFO


def test_unknown_format_is_refused() -> None:
    with pytest.raises(logs.LogSpecError, match="'xml' is unknown; use json or console"):
        logs.configure("info", "xml")  # type: ignore[arg-type]


_PROGRAM = """
import logging, sys
from selvedge_common import logs
early = logs.get_logger("early")
logs.configure("info:quiet=error", sys.argv[1])
early.info("serving", address="127.0.0.1:7051")
early.debug("hidden")
logs.get_logger("quiet").info("hidden")
logging.getLogger("some.library").warning("odd %s", "thing", extra={"count": 3})
try:
    1 / 0
except ZeroDivisionError as error:
    early.error("failed", exc_info=error)
"""


def _output(format: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, format], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr


def test_json_is_one_object_a_line_libraries_included() -> None:
    lines = [json.loads(line) for line in _output("json").splitlines()]
    assert [(line["event"], line["level"], line["logger"]) for line in lines] == [
        ("serving", "info", "early"),
        ("odd thing", "warning", "some.library"),
        ("failed", "error", "early"),
    ]
    assert lines[0]["address"] == "127.0.0.1:7051"
    assert lines[0]["timestamp"].endswith("Z")
    assert lines[1]["count"] == 3
    assert "ZeroDivisionError" in lines[2]["exception"]


def test_console_is_for_people_and_plain_when_piped() -> None:
    output = _output("console")
    assert "\x1b" not in output
    first, second, *trace = output.splitlines()
    assert "serving" in first
    assert "address=127.0.0.1:7051" in first
    assert "odd thing" in second
    # Events start in one column, whatever the level's name is long.
    assert first.index("serving") == second.index("odd thing")
    assert any("ZeroDivisionError" in line for line in trace)
    assert "hidden" not in output


def test_a_process_remembers_so_many_loggers_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs._levels, "ever_named", set())
    for request in range(10):
        names = ",".join(f"flood.a{request}.n{number}" for number in range(100))
        with contextlib.suppress(logs.LogSpecError):
            logs.set_spec(f"{names}=debug")
    kept = len(logging.root.manager.loggerDict)
    for number in range(10):
        with pytest.raises(logs.LogSpecError, match="more than the 1000 that a process remembers"):
            logs.set_spec(",".join(f"more{number}.n{name}" for name in range(100)) + "=debug")
    assert len(logging.root.manager.loggerDict) == kept
    logs.set_spec("info:flood.a1.n1=debug")
    assert logs.get_spec() == "flood.a1.n1=debug:info"


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lines:
    """Lines of ours, as they pass a bound of their own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.bound = logs.Bound(self.clock)

    def log(self, logger: str, event: str, level: str = "warning") -> dict[str, object] | None:
        """One line; what is written of it, None if it is left out."""
        try:
            return dict(self.bound.of_event(logging.getLogger(logger), level, {"event": event}))
        except structlog.DropEvent:
            return None

    def flood(self, logger: str, event: str, lines: int, level: str = "warning") -> int:
        """So many lines at once; how many are written."""
        return sum(self.log(logger, event, level) is not None for _ in range(lines))


def left_out(logger: str) -> float:
    return REGISTRY.get_sample_value("log_lines_left_out_total", {"logger": logger}) or 0.0


def test_flood_of_an_event_is_left_out_and_counted() -> None:
    lines, before = Lines(), left_out("chaincode")
    assert lines.flood("chaincode", "chaincode stream refused", 5000) == logs.LINES_AT_ONCE
    assert left_out("chaincode") == before + 4900
    for _ in range(60):
        lines.clock.now += 1
        assert lines.flood("chaincode", "chaincode stream refused", 500) == logs.LINES_A_SECOND


def test_line_after_a_flood_tells_how_many_were_left_out() -> None:
    lines = Lines()
    assert lines.log("comm", "connection ended") == {"event": "connection ended"}
    lines.flood("comm", "connection ended", 1000)
    lines.clock.now += 3600
    line = {"event": "connection ended", "left_out": 901}
    assert lines.log("comm", "connection ended") == line
    assert lines.log("comm", "connection ended") == {"event": "connection ended"}
    # An hour earns no more than there was at first.
    assert lines.flood("comm", "connection ended", 1000) == logs.LINES_AT_ONCE - 2


def test_flood_hides_no_other_event_and_no_other_logger() -> None:
    lines = Lines()
    lines.flood("comm", "connection ended", 1000)
    assert lines.log("comm", "connection refused") is not None
    assert lines.log("peer", "connection ended") is not None


def test_critical_lines_and_unbounded_loggers_are_always_written() -> None:
    lines = Lines()
    assert lines.flood("orderer", "ordering log damaged", 1000, "critical") == 1000
    logs.get_logger("test.unbounded", bounded=False)
    assert lines.flood("test.unbounded", "printed", 1000) == 1000
    assert lines.flood("orderer", "block not ordered", 1000, "exception") == logs.LINES_AT_ONCE


def test_made_up_events_share_one_allowance_and_take_no_room() -> None:
    lines = Lines()
    lines.log("comm", "known")
    written = [lines.log("comm", f"made up {number}") for number in range(10_000)]
    of_their_own = logs.MOST_EVENTS - 1
    assert sum(line is not None for line in written) == of_their_own + logs.LINES_AT_ONCE
    assert sum(map(len, lines.bound._events.values())) == logs.MOST_EVENTS + 1
    assert lines.log("comm", "known") is not None
    assert lines.log("peer", "serving") is not None


_FLOOD = """
import logging
from selvedge_common import logs
early = logs.get_logger("early")
logs.configure("info", "json")
for number in range(1000):
    early.warning("refused", number=number)
    logging.getLogger("some.library").warning(f"odd {number}")
    logging.getLogger("some.library").critical(f"broken {number}")
early.info("stopped")
"""


def test_process_writes_what_the_bound_lets_through_libraries_included() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FLOOD], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    for logger in ("early", "some.library"):
        written = [
            line for line in lines if line["logger"] == logger and line["level"] == "warning"
        ]
        # Ten more come with each second that the program takes.
        assert logs.LINES_AT_ONCE <= len(written) < 1000
        told = sum(line.get("left_out", 0) for line in written)
        assert told <= 1000 - len(written)
        assert all(line["left_out"] > 0 for line in written if "left_out" in line)
    assert sum(line["level"] == "critical" for line in lines) == 1000
    assert lines[-1]["event"] == "stopped"
    assert "left_out" not in lines[-1]


def test_library_that_floods_tells_how_many_lines_were_left_out() -> None:
    clock = Clock()
    bound = logs.Bound(clock)

    def record(number: int, statement: int = 7) -> logging.LogRecord:
        return logging.LogRecord(
            "some.library", logging.WARNING, "library.py", statement, f"odd {number}", (), None
        )

    assert sum(bound.of_record(record(number)) for number in range(1000)) == logs.LINES_AT_ONCE
    assert bound.of_record(record(0, statement=8))
    clock.now += 1
    after = record(1000)
    assert bound.of_record(after)
    assert vars(after)["left_out"] == 900
