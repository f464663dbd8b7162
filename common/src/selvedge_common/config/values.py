"""The scalar values a configuration is made of, and how their text is read."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path


class ConfigError(ValueError):
    """A configuration that cannot be used; its text is one sentence for the operator."""


class Duration(float):
    """Seconds, written in Go's form: `30s`, `10ms`, `1m30s`, `-1s`, `0`."""


class Size(int):
    """Bytes, written as a number or with a unit of 1024: `100MB`, `64 kb`, `1g`."""


# Decimal, so that 100us is exactly the float 0.0001.
_SECONDS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_TERM = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SIZE = re.compile(r"(\d+)\s*(?:([kmg])i?b?|b)?", re.IGNORECASE)
_SHIFT = {"k": 10, "m": 20, "g": 30}
_TRUE = {"1", "t", "true"}
_FALSE = {"0", "f", "false"}


def parse_duration(value: object) -> Duration:
    """Read Go's duration form. Raises ValueError saying what is expected."""
    expected = 'a duration with a unit, such as "30s", "10ms" or "1m30s"'
    if value == 0 and not isinstance(value, bool | str):
        return Duration(0)
    if not isinstance(value, str):
        raise ValueError(expected)
    text = value.strip()
    sign, unsigned = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if unsigned == "0":
        return Duration(0)
    terms = list(_TERM.finditer(unsigned))
    if not terms or "".join(term.group() for term in terms) != unsigned:
        raise ValueError(expected)
    return Duration(sign * sum(Decimal(term[1]) * _SECONDS[term[2]] for term in terms))


def parse_size(value: object) -> Size:
    """Read bytes, bare or with a unit. Raises ValueError saying what is expected."""
    expected = 'a size in bytes, bare or with a unit, such as 1048576, "512KB" or "100MB"'
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Size(value)
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(expected)
    return Size(int(match[1]) << _SHIFT.get((match[2] or "").lower(), 0))


def parse_bool(value: object) -> bool:
    """Read a truth value. Raises ValueError saying what is expected."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
        return value.strip().lower() in _TRUE
    raise ValueError("true or false")


def parse_int(value: object) -> int:
    """Read a whole number. Raises ValueError saying what is expected."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+", value.strip(), re.ASCII):
        return int(value)
    raise ValueError("a whole number")


def parse_float(value: object) -> float:
    """Read a finite number. Raises ValueError saying what is expected."""
    if isinstance(value, int | float) and not isinstance(value, bool) and _finite(value):
        return float(value)
    decimal = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
    if isinstance(value, str) and re.fullmatch(decimal, value.strip(), re.ASCII):
        return float(value)
    raise ValueError("a number")


def parse_str(value: object) -> str:
    """Take text as it is. Raises ValueError saying what is expected."""
    if isinstance(value, str):
        return value
    raise ValueError("text (put it in quotes)")


def parse_path(value: object) -> Path:
    """Read a path; `~` is the home folder. Raises ValueError saying what is expected."""
    if isinstance(value, str):
        return Path(value).expanduser()
    raise ValueError("a path")


def _finite(value: float) -> bool:
    return value not in (float("inf"), float("-inf")) and value == value


PARSERS: Mapping[object, Callable[[object], object]] = {
    bool: parse_bool,
    int: parse_int,
    float: parse_float,
    str: parse_str,
    Path: parse_path,
    Duration: parse_duration,
    Size: parse_size,
}
