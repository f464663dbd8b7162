"""Structured logs: structlog over the standard library, levels by Fabric's logging spec.

The spec follows Fabric's common/flogging: `[logger[,logger…]=]level[:…]`, for example
`info:chaincode=debug:comm.tls,msp=warning`. A level given to a logger holds for those below it.

What clients can cause would otherwise fill the disk, so the same event of the same logger is
written only so often; the next line of it that is written tells how many were left out.
"""

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Literal

import structlog
from prometheus_client import Counter

from selvedge_common.quoting import quoted

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
DEFAULT_LEVEL = "info"
_NAME = re.compile(r"[\w#-]+(\.[\w#-]+)*")
# The standard library keeps every logger ever named, and a place for each level of its name.
_LONGEST_NAME = 100  # characters
_MOST_LEVELS = 8
_MOST_NAMES = 1000  # in the life of a process

# How often an event of a logger is written. Ten lines a second are 5 KB, or 400 MB a day.
LINES_AT_ONCE = 100
LINES_A_SECOND = 10.0
# Events of one logger that are told apart. They stand in the code, so there are fewer.
MOST_EVENTS = 100

LEFT_OUT = Counter(
    "log_lines_left_out_total",
    "Lines that were not written because there had been too many of the same event.",
    ["logger"],
)


class LogSpecError(ValueError):
    """A logging spec that cannot be used; its text is one sentence for the operator."""


# What an event of ours and a library's record go through alike, before they are rendered.
_COMMON: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
]

_PROCESSORS: list[structlog.typing.Processor] = [
    *_COMMON,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
]

# From the start on, so that what is logged before configure() also goes the standard library's
# way, to standard error, and never mixes with a command's output.
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, *_PROCESSORS],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)


class Bound:
    """How many lines there may be, for each logger and each of its events.

    An event has its own allowance, so a flood of one hides no other. Critical lines, and those of
    loggers that were made for it, are always written.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._events: dict[str, dict[object, _Allowance]] = {}
        # Lines come from all threads, and from what a thread's collector of garbage calls.
        self._lock = threading.RLock()

    def of_event(
        self,
        logger: structlog.typing.WrappedLogger,
        method: str,
        line: structlog.typing.EventDict,
    ) -> structlog.typing.EventDict:
        """Process a line of ours, before anything is done for it.

        Raises:
            structlog.DropEvent: it is one too many.
        """
        if method in ("critical", "fatal") or logger.name in _unbounded:
            return line
        left_out = self._take(logger.name, line.get("event"))
        if left_out is None:
            raise structlog.DropEvent
        if left_out:
            line["left_out"] = left_out
        return line

    def of_record(self, record: logging.LogRecord) -> bool:
        """Filter a library's record. Its text may have anything in it: the statement counts."""
        if hasattr(record, "_logger") or record.levelno >= logging.CRITICAL:
            return True  # the former is one of ours, which was let through already
        left_out = self._take(record.name, (record.pathname, record.lineno))
        if left_out:
            record.left_out = left_out
        return left_out is not None

    def _take(self, logger: str, event: object) -> int | None:
        """Give how many lines before this one were left out; None if this one is, too."""
        with self._lock:
            events = self._events.setdefault(logger, {})
            if event not in events and len(events) >= MOST_EVENTS:
                event = None
            now = self._clock()
            allowance = events.get(event)
            if allowance is None:
                allowance = events[event] = _Allowance(now)
            left_out = allowance.spend(now)
        if left_out is None:
            LEFT_OUT.labels(logger).inc()
        return left_out


class _Allowance:
    """The lines that an event still has, and how many of its lines were left out since one was
    written."""

    __slots__ = ("_left", "_left_out", "_since")

    def __init__(self, now: float) -> None:
        self._left = float(LINES_AT_ONCE)
        self._left_out = 0
        self._since = now

    def spend(self, now: float) -> int | None:
        earned = (now - self._since) * LINES_A_SECOND
        self._left = min(float(LINES_AT_ONCE), self._left + earned)
        self._since = now
        if self._left < 1:
            self._left_out += 1
            return None
        self._left -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out


# Names of loggers whose lines are bounded elsewhere, or that no client can cause.
_unbounded: set[str] = set()


class _Levels:
    """The levels in force: one for the root, one for each logger that was named."""

    def __init__(self) -> None:
        self.default = DEFAULT_LEVEL
        self.loggers: dict[str, str] = {}
        self.ever_named: set[str] = set()


_levels = _Levels()


def configure(spec: str, format: Literal["json", "console"]) -> None:
    """Send all logs, also those of libraries, to standard error, and bound how many there are.

    Args:
        spec: levels in Fabric's form.
        format: `json` for one object a line, `console` for people (coloured on a terminal).

    Raises:
        LogSpecError: the spec or the format is not valid.
    """
    if format not in ("json", "console"):
        raise LogSpecError(f"The log format {format!r} is unknown; use json or console.")
    _parse(spec)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_COMMON,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(format, sys.stderr.isatty()),
            ],
        )
    )
    bound = Bound()
    handler.addFilter(bound.of_record)
    logging.getLogger().handlers[:] = [handler]
    structlog.configure(processors=[structlog.stdlib.filter_by_level, bound.of_event, *_PROCESSORS])
    set_spec(spec)


def _renderers(
    format: Literal["json", "console"], colors: bool
) -> list[structlog.typing.Processor]:
    if format == "json":
        return [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
        structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=36),
    ]


def set_spec(spec: str) -> None:
    """Put new levels in force at once; loggers that are not named follow the root again.

    Raises:
        LogSpecError: the spec is not valid; the levels in force stay.
    """
    default, loggers = _parse(spec)
    named = _levels.ever_named | loggers.keys()
    if len(named) > _MOST_NAMES:
        raise LogSpecError(
            f"Logging specs have named {len(named)} different loggers by now, more than the"
            f" {_MOST_NAMES} that a process remembers; use names of before, or restart it."
        )
    _levels.ever_named = named
    for name in _levels.loggers.keys() - loggers.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in loggers.items():
        logging.getLogger(name).setLevel(LEVELS[level])
    logging.getLogger().setLevel(LEVELS[default])
    _levels.default, _levels.loggers = default, loggers


def get_spec() -> str:
    """The levels in force, as a spec: named loggers in order, the root's level last."""
    named = [f"{name}={level}" for name, level in sorted(_levels.loggers.items())]
    return ":".join([*named, _levels.default])


def get_level(name: str) -> str:
    """The level in force for the logger of that name: its own, or that of the nearest above it."""
    path = f"{name}."
    above = (named for named in _levels.loggers if path.startswith(f"{named}."))
    return _levels.loggers.get(max(above, key=len, default=""), _levels.default)


def get_logger(name: str, *, bounded: bool = True) -> structlog.stdlib.BoundLogger:
    """The logger of that name; dots make a hierarchy, as in `comm.tls`.

    Args:
        name: the logger's.
        bounded: whether its lines are left out where there are too many; not those that no client
            can cause, or that are bounded elsewhere.
    """
    if not bounded:
        _unbounded.add(name)
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _parse(spec: str) -> tuple[str, dict[str, str]]:
    default: str | None = None
    loggers: dict[str, str] = {}
    for field in spec.split(":") if spec else ():
        names, equals, level = field.rpartition("=")
        level = level.strip().lower()
        if level not in LEVELS:
            raise LogSpecError(
                f"The logging spec {quoted(spec)} has the level {quoted(level)} in"
                f" {quoted(field)}; "
                f"use one of {', '.join(LEVELS)}."
            )
        if not equals:
            if default is not None:
                raise LogSpecError(
                    f"The logging spec {quoted(spec)} gives the default level twice "
                    f"({default}, {level}); keep one."
                )
            default = level
            continue
        for name in map(str.strip, names.split(",")):
            if not _NAME.fullmatch(name):
                raise LogSpecError(
                    f"The logging spec {quoted(spec)} has the logger name {quoted(name)} in"
                    f" {quoted(field)}; write names as comm.tls, separated by commas."
                )
            if len(name) > _LONGEST_NAME or name.count(".") >= _MOST_LEVELS:
                raise LogSpecError(
                    f"The logging spec {quoted(spec)} has the logger name {quoted(name)}; a name"
                    f" has at most {_LONGEST_NAME} characters and {_MOST_LEVELS} levels."
                )
            loggers[name] = level
    return default or DEFAULT_LEVEL, loggers
