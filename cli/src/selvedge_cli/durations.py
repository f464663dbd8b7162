"""Times as Go and Fabric write them: 30s, 1m30s, 250ms."""

from __future__ import annotations

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
