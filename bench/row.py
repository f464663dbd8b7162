"""What is measured, as rows of one table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Row:
    """One measured number, and what yardsticks make of the same.

    Attributes:
        group: the measurement that it belongs to.
        name: what was measured.
        value: how much, in `unit`; None where `note` says why there is none.
        unit: of `value` and of `raw`.
        raw: the same, measured in the same run with nothing but what others wrote: grpc.aio, or
            SQLite where it is the ledger's.
        echo: the same with our native transport and nothing behind it.
        cpu, raw_cpu, echo_cpu: microseconds of the server's processor time for each call or event.
        note: what else a reader should know.
    """

    group: str
    name: str
    value: float | None
    unit: str = ""
    raw: float | None = None
    cpu: float | None = None
    raw_cpu: float | None = None
    echo: float | None = None
    echo_cpu: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The value divided by the raw one."""
        return self.value / self.raw if self.value is not None and self.raw else None

    @property
    def echo_ratio(self) -> float | None:
        """The value divided by the one of the echo."""
        return self.value / self.echo if self.value is not None and self.echo else None

    @property
    def echo_times(self) -> float | None:
        """How many times the processor time of the echo it takes."""
        return self.cpu / self.echo_cpu if self.cpu is not None and self.echo_cpu else None

    def record(self) -> dict[str, object]:
        """The row for programs; what was not measured is left out."""
        fields: dict[str, object] = {
            "group": self.group,
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
        }
        extra = {
            "raw": self.raw,
            "ratio": self.ratio,
            "echo": self.echo,
            "echo_ratio": self.echo_ratio,
            "cpu_us": self.cpu,
            "raw_cpu_us": self.raw_cpu,
            "echo_cpu_us": self.echo_cpu,
            "echo_times": self.echo_times,
            "note": self.note or None,
        }
        return fields | {name: value for name, value in extra.items() if value is not None}


HEADINGS = (
    *("", "measured", "", "raw", "ratio", "echo", "ratio"),
    *("server µs", "raw µs", "echo µs", "times echo"),
)


def table(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of the table, rows of one group under its name."""
    grouped = [(group, list(members)) for group, members in groupby(rows, lambda row: row.group)]
    cells = {
        row: (
            f"  {row.name}",
            _number(row.value),
            row.unit,
            _number(row.raw),
            _number(row.ratio),
            _number(row.echo),
            _number(row.echo_ratio),
            _number(row.cpu),
            _number(row.raw_cpu),
            _number(row.echo_cpu),
            _number(row.echo_times),
        )
        for _, members in grouped
        for row in members
    }
    columns = list(zip(*cells.values(), strict=True))
    widths = [
        max(len(heading), *map(len, column)) if any(column) else 0
        for heading, column in zip(HEADINGS, columns, strict=True)
    ]
    yield _line(HEADINGS, widths)
    for group, members in grouped:
        yield group
        for row in members:
            yield f"{_line(cells[row], widths)}  {row.note}".rstrip()


def verdict(aim: str, met: bool) -> str:
    """The note on an aim."""
    return f"aim {aim}: {'met' if met else 'missed'}"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    # Words to the left: the name of the row, and the unit after its number.
    aligned = [
        cell.ljust(width) if column in (0, 2) else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        if width
    ]
    return "  ".join(aligned).rstrip()


def _number(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
