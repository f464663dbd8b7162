"""Times as Go and Fabric write them: 30s, 1m30s, 250ms; and how long ago something was."""

from __future__ import annotations

from datetime import datetime

import click


class Duration(click.ParamType[float]):
    """A positive time; gives seconds."""

    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read what the user wrote."""
        from selvedge_common.config.values import parse_duration

        if isinstance(value, int | float):
            return float(value)
        try:
            seconds = float(parse_duration(value))
        except ValueError:
            seconds = 0.0
        if seconds <= 0:
            self.fail(f"{value!r} is no time: write it as in 30s or 1m30s", param, ctx)
        return seconds


DURATION = Duration()


def ago(moment: datetime, now: datetime) -> str:
    """How long ago that was, in two units at most: 3d 4h, 45s."""
    seconds = max(0, int((now - moment).total_seconds()))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
