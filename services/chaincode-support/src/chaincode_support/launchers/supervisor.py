"""The life of one packaged chaincode: launched when it is first called, and again when it ended.

Follows core/chaincode/runtime_launcher.go of Fabric 2.5, where a launch is a one-shot future that
all who wait share; here they wait at the registry, and this tells it when there will be nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.stream import ChaincodeStream
from chaincode_support.launchers import metrics
from chaincode_support.launchers.errors import LaunchFailed, NotLaunched
from chaincode_support.launchers.package import Package
from chaincode_support.launchers.waiting import Waiting
from selvedge_common.logs import get_logger

log = get_logger("chaincode")

# Seconds between two looks whether drained streams have ended.
_POLL = 0.02
# Pauses differ by so much either way: chaincodes that ended together come back one by one.
_JITTER = 0.25


class Attempt(Protocol):
    """One run of a chaincode, or one connection to it."""

    @property
    def again(self) -> str:
        """What another attempt does, as "start it again"."""

    @property
    def fails_at_once(self) -> bool:
        """Whether those that wait are told when it ended without registering; otherwise they may as
        well wait for the next attempt."""

    @property
    def doing(self) -> str:
        """What it does, as "starting"."""

    @property
    def reached(self) -> bool:
        """Whether there is a chaincode to hear of: its program runs, or took the connection."""

    @property
    def last_words(self) -> str:
        """What the chaincode said last, where the peer hears it; otherwise empty."""

    @property
    def details(self) -> str:
        """What else is known of its end, for the log and not for clients; otherwise empty."""

    async def run(self) -> str:
        """Return how it ended, in words that continue a sentence about it. Raises NotLaunched for
        what a person must mend, which those that wait are told at once."""

    def stop(self) -> None:
        """Have it end."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds between two attempts: `first`, then twice as long each time up to `longest`."""

    first: float
    longest: float


class Supervisor:
    """Launches one chaincode, again and again from the first call on.

    Args:
        package: what to launch; `replace` gives another one.
        begin: makes an attempt.
        registry: where the chaincode registers.
        waiting: those that wait for it; for them the pause is cut to the first one.
        pauses: between attempts.
        grace: seconds that running transactions get when it is to end.
    """

    def __init__(
        self,
        package: Package,
        begin: Callable[[Package], Attempt],
        registry: Registry,
        waiting: Waiting,
        pauses: Pauses,
        grace: float,
    ) -> None:
        self.package = package
        self._begin = begin
        self._registry = registry
        self._waiting = waiting
        self._pauses = pauses
        self._grace = grace
        self._attempt: Attempt | None = None
        self._running: asyncio.Task[None] | None = None
        self._ending = False
        self._wake = asyncio.Event()
        self._cause = ""
        self._told = ""
        self._next_at = 0.0

    @property
    def name(self) -> str:
        """The chaincode's."""
        return self.package.name

    @property
    def state(self) -> str:
        """What it does, in words."""
        if self._running is None:
            return "to be launched when it is first called"
        if self._attempt is None:
            return "starting"
        if self._next_at:
            seconds = max(0.0, self._next_at - asyncio.get_running_loop().time())
            return f"waiting {seconds:.1f} s to {self._attempt.again}, since it {self._cause}"
        return self._attempt.doing

    def missing(self) -> str:
        """Why it is not there, for the end of a sentence: the cause, as far as there is one."""
        attempt = self._attempt
        if self._cause and (attempt is None or self._next_at or not attempt.reached):
            told = [f"it {self._cause}"]
        else:
            told = [self.state]
            told += [attempt.last_words] if attempt is not None and attempt.last_words else []
            told += [f"the attempt before {self._cause}"] if self._cause else []
        return f"{'; '.join(told)} (package {self.package.short_id})"

    def call(self) -> None:
        """It is wanted: launch it, unless that is under way."""
        self._wake.set()
        if not self._ending and (self._running is None or self._running.done()):
            self._running = asyncio.create_task(self._run(), name=f"chaincode {self.name}")

    async def replace(self, package: Package) -> None:
        """Go on with another package of this chaincode, once the one before has ended."""
        self.package = package
        await self._stop_attempt()

    async def stop(self) -> None:
        """End it: its transactions are finished within the grace, then its streams are ended."""
        self._ending = True
        await self._stop_attempt()
        if self._running is not None:
            await asyncio.wait((self._running,), timeout=2 * self._grace)
            self._running.cancel()
            await asyncio.wait((self._running,))
        self._registry.failed(
            self.name,
            LaunchFailed(
                f"chaincode {self.name} is launched no more: its package "
                f"{self.package.short_id} was taken away, or the peer stops"
            ),
        )

    async def _stop_attempt(self) -> None:
        attempt = self._attempt
        self._wake.set()
        if attempt is not None and not self._next_at:
            await self._drain()
            attempt.stop()

    async def _drain(self) -> None:
        """Have its streams finish what they run, within the grace."""
        streams = [
            stream
            for stream in self._registry.replicas(self.name)
            if isinstance(stream, ChaincodeStream)
        ]
        for stream in streams:
            stream.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                while any(  # noqa: ASYNC110 - nothing tells of a stream's end
                    stream in streams for stream in self._registry.replicas(self.name)
                ):
                    await asyncio.sleep(_POLL)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        pause = self._pauses.first
        began = 0.0
        while not self._ending:
            package = self.package
            if began:
                metrics.restarts.labels(self.name).inc()
            began = clock()
            self._attempt = self._begin(package)
            await self._try(self._attempt)
            if clock() - began >= self._pauses.longest:
                pause = self._pauses.first
            if self.package is package and not self._ending:
                seconds = pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
                if await self._rest(package, seconds):
                    pause = min(2 * pause, self._pauses.longest)
            else:
                self._cause = ""
        self._attempt = None

    async def _try(self, attempt: Attempt) -> None:
        """Run an attempt to its end; those that wait are told if it was in vain, unless it was
        ended for another package, or for good."""
        package = self.package
        registering = asyncio.create_task(self._registry.wait_for(self.name))
        remedy = ""
        hopeless = True
        try:
            self._cause = await attempt.run()
            hopeless = attempt.fails_at_once
            remedy = f"; correct it, and call it again (package {package.short_id})"
        except NotLaunched as error:
            self._cause = str(error)
        except Exception as error:
            log.exception("chaincode not launched", chaincode=self.name, package=self.package.id)
            self._cause = f"could not be launched ({type(error).__name__}: {error})"
        finally:
            registered = registering.done() and not registering.cancelled()
            registering.cancel()
            await asyncio.gather(registering, return_exceptions=True)
        if hopeless and not registered and self.package is package and not self._ending:
            self._registry.failed(
                self.name, LaunchFailed(f"chaincode {self.name} {self._cause}{remedy}")
            )

    async def _rest(self, package: Package, seconds: float) -> bool:
        """Pause before the next attempt; not as long if somebody waits, nor at all if there is
        another package, or no further attempt. Returns whether the time is over."""
        clock = asyncio.get_running_loop().time
        began = clock()
        self._next_at = began + seconds
        details = self._attempt.details if self._attempt is not None else ""
        # The same over and over is no news.
        tell = log.debug if self._cause == self._told else log.warning
        tell(
            "chaincode not there",
            chaincode=self.name,
            package=package.id,
            cause=self._cause,
            again_in=round(seconds, 3),
            **({"details": details} if details else {}),
        )
        self._told = self._cause
        while self.package is package and not self._ending:
            until = self._next_at
            if self._waiting[self.name]:
                until = min(until, began + self._pauses.first)
            if clock() >= until:
                break
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
        over = clock() >= self._next_at
        self._next_at = 0.0
        return over
