"""Resident memory of each process, idle after the start."""

from __future__ import annotations

from pathlib import Path

from bench.effort import Effort
from bench.house import running
from bench.process import memory, settle
from bench.row import Row
from bench.site import yardstick

GROUP = "memory, idle after the start"


async def measure(effort: Effort, folder: Path) -> list[Row]:
    """Start on a new home, wait until nothing works any more, and look."""
    async with running(folder) as house, yardstick("raw", house) as raw:
        pids = house.pids()
        await settle([*pids.values(), raw.pid])
        floor = memory(raw.pid)
        rows = []
        for name, pid in pids.items():
            used = memory(pid)
            rows.append(Row(GROUP, f"{name}, RSS", used.rss, "MB", floor.rss))
            rows.append(Row(GROUP, f"{name}, PSS", used.pss, "MB", floor.pss))
        return rows
