"""Kill an event hub and what is around it, again and again: `python -m bench.drill --help`.

Two sources make blocks without a pause, two hubs read them, and consumers by Chat, Deliver and
Subscribe follow. In each round one thing fails at a random moment: a hub or a source is killed,
stopped or lost, or a network is cut or falls silent. Whatever it was, every consumer has to hear
everything that the sources made, once and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path

import uvloop

from bench.drill import publisher
from bench.drill.account import Untrue
from bench.drill.consumers import KINDS, Consumer
from bench.drill.failures import FAILURES
from bench.drill.ground import Ground, ground
from bench.house import House
from bench.process import BenchError

ROUNDS = 300
ON_ONE_GROUND = 25
"""Rounds after which everything is begun anew."""
REPORT = 5.0
"""Seconds from one line of progress to the next."""
NEWCOMERS = 3
"""Consumers that come in each round, and begin somewhere in the past."""
PAST, SURELY_READ = 300, 100
"""So many blocks before the newest they begin, at most and at least: a hub that was killed is not
behind by that many."""
PACES = (0.0, 0.0, 0.0, 0.001)
"""Seconds that a newcomer takes for a word, at most."""
BEFORE, AFTER = 0.5, 0.3
"""Seconds that blocks flow before and after a failure, at most."""
EPILOG = f"""examples:
  python -m bench.drill --rounds 300                 {ROUNDS} rounds, half an hour
  python -m bench.drill --rounds 1 --seed 2718281    a round again

The rounds have a seed each, one above the other: --seed is that of the first. The status is 0 if
nobody missed anything or heard it twice; else the seed of the round is told, and the folder with
the logs of all processes is kept.
"""


class Drill:
    """Rounds on one ground.

    Args:
        home: of a `selvedge up` that ran there.
        transport: of the hubs.

    Attributes:
        rounds: how many were done, by what failed.
        blocks: how many were made.
        heard: what consumers heard, in all.
    """

    def __init__(self, home: Path, transport: str) -> None:
        self.rounds = Counter[str]()
        self.blocks = self.heard = 0
        self._home = home
        self._transport = transport
        self._next_report = time.monotonic() + REPORT

    async def run(self, rounds: int, seed: int, folder: Path) -> None:
        """Do so many rounds. Raises Untrue."""
        done = 0
        while done < rounds:
            place = folder / f"ground-{done}"
            place.mkdir()
            async with ground(self._home, place, self._transport, seed + done) as here:
                for _ in range(min(ON_ONE_GROUND, rounds - done)):
                    await self._round(here, seed + done)
                    done += 1
                    self._report(done, rounds, here.story.height)
            self.blocks += here.story.height
            self.heard += here.company.heard
            shutil.rmtree(place)

    async def _round(self, here: Ground, seed: int) -> None:
        chosen = random.Random(seed)  # noqa: S311 - moments, not secrets
        what = chosen.choice(sorted(FAILURES))
        newcomers = [
            self._newcomer(here, kind, chosen) for kind in chosen.sample(sorted(KINDS), NEWCOMERS)
        ]
        flowing = asyncio.create_task(here.flow(chosen.getrandbits(32)))
        try:
            await asyncio.sleep(chosen.uniform(0, BEFORE))
            async with FAILURES[what](here, chosen):
                await asyncio.sleep(chosen.uniform(0, AFTER))
                flowing.cancel()
                with suppress(asyncio.CancelledError):
                    await flowing
                await here.company.settle()
            await here.company.settle()
            here.check_logs()
        except Exception as error:
            why = str(error) or "something did not end in time"
            raise Untrue(f"the round of seed {seed}, {what}: {why}") from error
        finally:
            flowing.cancel()
        await here.company.leave(*newcomers)
        self.rounds[what] += 1

    def _newcomer(self, here: Ground, kind: str, chosen: random.Random) -> Consumer:
        return here.company.add(
            kind,
            chosen.choice((here.hubs[:1], here.hubs[1:], here.hubs)),
            chosen.getrandbits(32),
            start=max(0, here.story.height - chosen.randint(SURELY_READ, PAST)),
            pace=chosen.choice(PACES),
        )

    def _report(self, done: int, rounds: int, height: int) -> None:
        if time.monotonic() < self._next_report and done < rounds:
            return
        self._next_report = time.monotonic() + REPORT
        print(
            f"drill: {done:,} of {rounds:,} rounds, {self.blocks + height:,} blocks",
            file=sys.stderr,
            flush=True,
        )


def main() -> None:
    """Drill, and end with the verdict's status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.drill",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"how many; {ROUNDS} if not given"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=random.SystemRandom().getrandbits(32),
        help="of the first round; another one each time if not given",
    )
    parser.add_argument(
        "--transport",
        choices=("native", "grpcio"),
        default="native",
        help="of the hubs; native if not given",
    )
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="selvedge-drill-"))
    try:
        drill = uvloop.run(run(folder, arguments))
    except (KeyboardInterrupt, asyncio.CancelledError):
        shutil.rmtree(folder)
        sys.exit(130)
    except (BenchError, OSError) as error:
        shutil.rmtree(folder)
        sys.exit(f"drill: {error}")
    except Untrue as error:
        traceback.print_exception(error)
        sys.exit(f"FAILED: {error}; the logs are kept in {folder}")
    shutil.rmtree(folder)
    for what, count in sorted(drill.rounds.items()):
        print(f"  {count:6,}  {what}")
    print(
        f"PASSED: {arguments.rounds:,} rounds from seed {arguments.seed} on, {drill.blocks:,} "
        f"blocks; consumers heard {drill.heard:,} things of them, each once and in order"
    )


async def run(folder: Path, arguments: argparse.Namespace) -> Drill:
    """Make certificates, and drill.

    Raises:
        Untrue: somebody did not hear everything, once and in order.
        BenchError: a process does not start.
    """
    # Ended like this, it still ends what it started.
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    house = House(folder)
    try:
        await house.start()
        await house.issue("--producer", publisher.NAME)
    finally:
        await house.stop()
    print(
        f"drill: {arguments.rounds:,} rounds, the first of seed {arguments.seed}", file=sys.stderr
    )
    drill = Drill(house.home, arguments.transport)
    await drill.run(arguments.rounds, arguments.seed, folder)
    return drill


if __name__ == "__main__":
    main()
