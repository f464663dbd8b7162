"""Kill an ordering and a ledger at work, again and again: `python -m bench.crash --help`.

Whatever was acknowledged must be there afterwards, once and whole, and the chain must verify.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# What the unit tests do thirty times.
sys.path.append(str(Path(__file__).parents[1] / "services" / "chaincode-support" / "tests"))
from crashes import Nursery, Rounds
from failing_disks import Disk, build

ROUNDS = 2000
ON_ONE_VOLUME = 40
"""Rounds after which another volume is begun: all of it is verified in each of them."""
REPORT = 5.0
"""Seconds from one line of progress to the next."""
EPILOG = f"""examples:
  python -m bench.crash                        {ROUNDS} rounds of kill -9, some minutes
  python -m bench.crash --rounds 200 --cut     power cuts, for which it needs a C compiler

A power cut is acted out: after the kill, what was written and no sync has followed is undone, all
of it or parts of it, down to single sectors. The status is 0 if nothing was lost; else the volume
is kept, and its place is told.
"""


def main() -> None:
    """Kill, look, and end with the verdict's status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.crash",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"how many; {ROUNDS} if not given"
    )
    parser.add_argument("--cut", action="store_true", help="act out power cuts")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    compiler = shutil.which("cc") if arguments.cut else None
    if arguments.cut and compiler is None:
        sys.exit("crash: power cuts need a C compiler: install your system's")
    folder = Path(tempfile.mkdtemp(prefix="selvedge-crash-"))
    try:
        acknowledged = crash(folder, arguments.rounds, arguments.seed, compiler)
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        sys.exit(130)
    except AssertionError:
        traceback.print_exc()
        sys.exit(f"FAILED, with seed {arguments.seed}: the volume is kept in {folder}")
    shutil.rmtree(folder)
    print(
        f"PASSED: {arguments.rounds:,} processes killed, {acknowledged:,} acknowledged "
        "transactions, none of them lost"
    )


def crash(folder: Path, rounds: int, seed: int, compiler: str | None) -> int:
    """Do so many rounds in a folder; how many transactions were acknowledged in them.

    With a C compiler power cuts are acted out. Raises AssertionError when something is lost.
    """
    chosen = random.Random(seed)  # noqa: S311 - moments, not secrets
    acknowledged, done = 0, 0
    report = time.monotonic() + REPORT
    with (
        _ground(folder, chosen, compiler) as (environment, after_kill),
        Nursery(**environment) as nursery,
    ):
        while done < rounds:
            volume = folder / "volume"
            volume.mkdir()
            killing = Rounds(nursery, volume, chosen, after_kill)
            for _ in range(min(ON_ONE_VOLUME, rounds - done)):
                killing.run()
                done += 1
                if time.monotonic() >= report or done == rounds:
                    report = time.monotonic() + REPORT
                    so_far = acknowledged + len(killing.ordered)
                    print(
                        f"crash: {done:,} of {rounds:,} rounds, {so_far:,} transactions "
                        "acknowledged",
                        file=sys.stderr,
                        flush=True,
                    )
            killing.finish()
            acknowledged += len(killing.ordered)
            shutil.rmtree(volume)
    return acknowledged


@contextmanager
def _ground(
    folder: Path, chosen: random.Random, compiler: str | None
) -> Iterator[tuple[Mapping[str, str], Callable[[], None]]]:
    """The variables of the processes, and what to do after each kill."""
    if compiler is None:
        yield {}, lambda: None
        return
    aside = folder / "aside"
    aside.mkdir()
    disk = Disk(build(aside, compiler), folder / "volume", aside, cuts=True)

    def cut_power() -> None:
        disk.cut_power(chosen if chosen.random() < 0.5 else None)

    yield disk.environment, cut_power


if __name__ == "__main__":
    main()
