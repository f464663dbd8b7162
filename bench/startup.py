"""From `selvedge up --demo` to ready."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.effort import Effort
from bench.house import House
from bench.row import Row
from bench.site import yardstick

GROUP = "start-up"


async def measure(effort: Effort, folder: Path) -> list[Row]:
    """Start on new homes, then on the last of them again and again."""
    cold, existing = [], []
    for number in range(effort.starts):
        house = House(_made(folder / f"home-{number}"))
        cold.append(await _start(house))
    existing = [await _start(house) for _ in range(effort.starts)]
    raw = [await _start_raw(house) for _ in range(effort.starts)]
    return [*_rows("on a cold home", cold, raw), *_rows("on an existing home", existing, raw)]


async def _start(house: House) -> float:
    try:
        return await house.start()
    finally:
        await house.stop()


async def _start_raw(house: House) -> float:
    started = time.perf_counter()
    async with yardstick("raw", house):
        return time.perf_counter() - started


def _rows(name: str, seconds: Sequence[float], raw: Sequence[float]) -> list[Row]:
    return [
        Row(GROUP, f"{name}, fastest of {len(seconds)}", min(seconds), "s", min(raw)),
        Row(GROUP, f"{name}, median", median(seconds), "s", median(raw)),
    ]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
