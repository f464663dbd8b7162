"""Measure, and print one table: `python -m bench --help`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from bench import (
    batches,
    committing,
    delivering,
    endorsing,
    fanout,
    growing,
    idling,
    images,
    latency,
    ledgers,
    pacing,
    ranges,
    replaying,
    resident,
    startup,
    states,
    streams,
    transport,
)
from bench.effort import FULL, QUICK, Effort
from bench.golang import NoGo
from bench.process import BenchError
from bench.progress import say
from bench.row import Row, table
from bench.site import site
from selvedge_cli.errors import CommandError

ALONE = {
    "startup": startup.measure,
    "memory": resident.measure,
    "images": images.measure,
    "transport": transport.measure,
}
"""What needs no running services, or starts its own."""
ON_SERVICES = {
    "latency": latency.measure,
    "pace": pacing.measure,
    "stream": streams.measure,
    "endorse": endorsing.measure,
    "commit": committing.measure,
    "state": states.measure,
    "range": ranges.measure,
    "batch": batches.measure,
    "fanout": fanout.measure,
    "delivery": delivering.measure,
    "idle": idling.measure,
    "ledger": ledgers.measure,
    "growth": growing.measure,
    "replay": replaying.measure,
}
"""What shares services, which are started once."""
EPILOG = """examples:
  python -m bench                              everything, about ten minutes
  python -m bench --quick --only latency       whether it works
  python -m bench --json > before.json         to compare with later

What each row means stands in bench/README.md. Run it alone: whatever else the machine does shows.
"""


def main() -> None:
    """Measure what the arguments name; what prevents it becomes one sentence and status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure services that it starts, each number beside servers that only answer.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="little of everything, to see whether it works"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=[*ALONE, *ON_SERVICES],
        metavar="NAME",
        help=f"only this, may be given again: {', '.join([*ALONE, *ON_SERVICES])}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    machine = describe_machine()
    try:
        rows = uvloop.run(
            measure(arguments.only or [*ALONE, *ON_SERVICES], QUICK if arguments.quick else FULL)
        )
    except (BenchError, CommandError, OSError, TimeoutError) as error:
        sys.exit(f"bench: {str(error) or 'something did not happen in time'}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    if arguments.json:
        records = [row.record() for row in rows]
        print(json.dumps({"machine": machine, "quick": arguments.quick, "rows": records}, indent=2))
        return
    print(", ".join(f"{what}: {value}" for what, value in machine.items()))
    print("\n".join(table(rows)))


async def measure(names: list[str], effort: Effort) -> list[Row]:
    """Make these measurements, in the order of the lists above.

    Raises:
        BenchError: the services do not do what they should.
        CommandError: a certificate of the home cannot be used.
    """
    rows: list[Row] = []
    # Ended like this, it still stops what it started.
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    for name, alone in ALONE.items():
        if name in names:
            with _folder() as folder:
                say(name)
                rows += await alone(effort, folder)
    if not ON_SERVICES.keys().isdisjoint(names):
        with _folder() as folder:
            rows += await _measure_services(names, effort, folder)
    return rows


async def _measure_services(names: list[str], effort: Effort, folder: Path) -> list[Row]:
    rows: list[Row] = []
    say("starting the services")
    try:
        async with site(effort, folder) as place:
            for name, on_services in ON_SERVICES.items():
                if name in names:
                    say(name)
                    rows += await on_services(place)
    except NoGo as error:
        return [Row("services", "not measured", None, note=str(error))]
    return rows


def describe_machine() -> dict[str, object]:
    """What the numbers depend on."""
    return {
        "processors": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        # Where it is not, every start compiles the project's sources anew.
        "byte code": "not kept" if sys.dont_write_bytecode else "kept",
    }


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="selvedge-bench-") as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
