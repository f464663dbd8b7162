"""Clients that behave badly, for a while, beside some that do not: `python -m bench.soak --help`.

The server is a process of its own. It has to answer all who behave, and to keep neither memory
nor descriptors of those who do not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from bench import golang, load_client
from bench.certificates import write_certificates
from bench.process import BenchError, memory, module, settle
from bench.rudeness import Rudeness
from bench.transport_server import STARTS

RATE = 40
"""Bad connections a second."""
AT_ONCE = 400
"""Bad connections open at a time, at most."""
ROUND = 2.0
"""Seconds of good calls, after which they are counted."""
REPORT = 15.0
"""Seconds from one line of progress to the next."""
GROWTH = 0.03
"""What memory may grow from the second quarter to the last, as a part of it."""
GONE = 30.0
"""Seconds in which the server has to notice that everybody has gone."""
EPILOG = """examples:
  python -m bench.soak                              ten minutes on the native transport
  python -m bench.soak --minutes 1 --transport grpcio

The status is 0 if memory stayed flat (mean of the second quarter against the last, 3 % allowed),
all descriptors are closed in the end, every good call was answered and every connection accepted.
It needs Go and Linux, and stays on the loopback.
"""


@dataclass
class Good:
    """What the clients that behave have seen.

    Attributes:
        answered: calls and messages that were answered as they should be.
        failed: others.
        errors: what was the matter.
    """

    answered: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)

    def fail(self, error: str, count: int = 1) -> None:
        """Remember a failure."""
        self.failed += count
        if error not in self.errors[-10:]:
            self.errors.append(error)


class Soak:
    """One run.

    Args:
        pid: the server.
        addresses: where it listens, plaintext and mTLS.
        folder: the certificates.
        load: the program of the clients that behave.
    """

    def __init__(self, pid: int, addresses: list[str], folder: Path, load: Path) -> None:
        self._pid = pid
        self._addresses = dict(zip((None, folder), addresses, strict=True))
        self._load = load
        plaintext, secure = addresses
        self._rudeness = Rudeness(plaintext, secure, folder)
        self._good = Good()
        self._resident: list[float] = []
        self._started = 0.0

    async def run(self, seconds: float) -> bool:
        """Soak for so long; prints how it goes and the verdict, and gives it."""
        await self._warm_up()
        descriptors = self._descriptors()
        self._started = time.monotonic()
        ending = self._started + seconds
        good = [
            asyncio.create_task(self._behave(mode, tls, ending))
            for mode in ("unary", "pingpong")
            for tls in self._addresses
        ]
        bad = asyncio.create_task(self._misbehave(ending))
        try:
            await self._watch(ending, min(REPORT, seconds / 4))
            await asyncio.gather(bad, *good)
        finally:
            for task in (bad, *good):
                task.cancel()
            await asyncio.gather(bad, *good, return_exceptions=True)
        left = await self._left_of(descriptors)
        for manner, count in sorted(self._rudeness.dropped.items()):
            print(f"  {count:6,}  {manner}")
        return self._verdict(descriptors, left)

    async def _warm_up(self) -> None:
        """Let the server load what it loads once."""
        for tls in self._addresses:
            async with self._client("unary", tls) as client:
                await client.round(ROUND)
        await settle([self._pid])

    async def _behave(self, mode: str, tls: Path | None, ending: float) -> None:
        """Make good calls. Those on streams keep their connection, the others come anew."""
        while time.monotonic() < ending:
            try:
                async with self._client(mode, tls) as client:
                    again = True
                    while again and time.monotonic() < ending:
                        done = await client.round(ROUND)
                        self._good.answered += done.messages
                        if done.failed:
                            self._good.fail(done.error, done.failed)
                        again = mode == "pingpong" and not done.failed
            except BenchError as error:
                self._good.fail(str(error))
                await asyncio.sleep(ROUND)

    async def _misbehave(self, ending: float) -> None:
        """Open bad connections at an even rate, and drop those that are left in the end."""
        tasks = set[asyncio.Task[None]]()
        try:
            while time.monotonic() < ending:
                if len(tasks) < AT_ONCE:
                    task = asyncio.create_task(self._rudeness.once())
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                await asyncio.sleep(1 / RATE)
        finally:
            left = list(tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _watch(self, ending: float, every: float) -> None:
        """Look at the server each second, and say how it goes."""
        report = time.monotonic() + every
        while (now := time.monotonic()) < ending:
            self._resident.append(self._memory())
            if now >= report:
                self._say()
                report += every
            await asyncio.sleep(min(1.0, ending - now))
        self._say()

    def _say(self) -> None:
        print(
            f"{time.monotonic() - self._started:6.0f} s"
            f"  bad connections {sum(self._rudeness.dropped.values()):,}"
            f"  RSS {self._resident[-1]:.1f} MB"
            f"  descriptors {self._descriptors()}"
            f"  good calls {self._good.answered:,}"
            f"  failed {self._good.failed}",
            flush=True,
        )

    async def _left_of(self, before: int) -> int:
        """The server's descriptors once they are as many as before, or do not get fewer."""
        patience = time.monotonic() + GONE
        while True:
            count = self._descriptors()
            if count <= before or time.monotonic() > patience:
                return count
            await asyncio.sleep(0.2)

    def _verdict(self, descriptors: int, left: int) -> bool:
        quarter = len(self._resident) // 4
        second = fmean(self._resident[quarter : 2 * quarter])
        last = fmean(self._resident[-quarter:])
        flat, closed = last <= second * (1 + GROWTH), left <= descriptors
        served = self._good.answered > 0 and not self._good.failed
        connected = not self._rudeness.unconnected
        for error in self._good.errors:
            print(f"  a good call failed: {error}")
        print(
            f"{'PASSED' if flat and closed and served and connected else 'FAILED'}:"
            f" memory {'flat' if flat else 'GREW'}"
            f" ({second:.1f} MB in the second quarter, {last:.1f} MB in the last,"
            f" {last / second - 1:+.1%});"
            f" descriptors {'back' if closed else 'NOT BACK'} ({descriptors} before, {left} after);"
            f" good calls {'all answered' if served else 'NOT ALL ANSWERED'}"
            f" ({self._good.answered:,}, {self._good.failed} failed);"
            f" bad connections {sum(self._rudeness.dropped.values()):,},"
            f" {self._rudeness.unconnected} of them not accepted"
        )
        return flat and closed and served and connected

    def _client(self, mode: str, tls: Path | None) -> load_client.Running:
        return load_client.load_client(
            mode, self._addresses[tls], built=self._load, tls=tls, streams=4, pause=0.02
        )

    def _memory(self) -> float:
        try:
            return memory(self._pid).rss
        except (OSError, KeyError):
            raise BenchError("the server is gone; its last words are above") from None

    def _descriptors(self) -> int:
        try:
            return len(os.listdir(f"/proc/{self._pid}/fd"))
        except OSError:
            raise BenchError("the server is gone; its last words are above") from None


async def soak(transport: str, seconds: float) -> bool:
    """Start a server, soak it, and stop it.

    Raises:
        BenchError: the server does not do what it should.
    """
    # Ended like this, it still stops what it started.
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    load = await golang.build("load")
    # Else grpcio says of each bad handshake that it was one.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="selvedge-soak-")))
        write_certificates(folder)
        server = await stack.enter_async_context(module("transport_server", transport, folder))
        addresses = (await server.line()).split()
        return await Soak(server.pid, addresses, folder, load).run(seconds)


def main() -> None:
    """Soak, and end with the verdict's status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long; 10 if not given")
    parser.add_argument("--transport", choices=STARTS, default="native", help="native if not given")
    arguments = parser.parse_args()
    try:
        passed = asyncio.run(soak(arguments.transport, arguments.minutes * 60))
    except (BenchError, OSError, TimeoutError) as error:
        sys.exit(f"soak: {error or 'something did not happen in time'}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
