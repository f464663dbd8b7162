"""All launchers of a peer: a chaincode with a package comes as the package says, any other by
itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from chaincode_support.chaincode.listing import describe_last_error
from chaincode_support.chaincode.registry import Registry
from chaincode_support.launchers.disk import DiskThread
from chaincode_support.launchers.errors import LaunchFailed
from chaincode_support.launchers.package import Command, Package
from chaincode_support.launchers.packages import SHOWN_BROKEN, Found, Packages
from chaincode_support.launchers.service import Serve
from chaincode_support.launchers.supervisor import Attempt, Pauses, Supervisor
from chaincode_support.launchers.waiting import Waiting
from selvedge_common.logs import get_logger
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import Chaincode

log = get_logger("chaincode.packages")

T = TypeVar("T")


class Unpackaged(Protocol):
    """Brings chaincode without a package."""

    async def launch(self, name: str) -> None:
        """Return once it is there. Raises a ChaincodeError."""


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """Times of launching, in seconds.

    Attributes:
        interval: between two looks at the folder of packages.
        pauses: before a chaincode is launched again.
        grace: that it gets to end.
    """

    interval: float
    pauses: Pauses
    grace: float


class Launchers:
    """Launches chaincode when it is first called. Belongs to one event loop.

    Args:
        packages: those that there are.
        unpackaged: for all other names.
        begin: makes one attempt with a package; what is dialled is served as `start` is told.
        registry: where chaincodes register.
        waiting: proposals that wait for one.
        settings: times.
    """

    def __init__(
        self,
        packages: Packages,
        unpackaged: Unpackaged,
        begin: Callable[[Package, Serve], Attempt],
        registry: Registry,
        waiting: Waiting,
        settings: LaunchSettings,
    ) -> None:
        self._packages = packages
        self._unpackaged = unpackaged
        self._begin = begin
        self._serve: Serve  # from the start on
        self._registry = registry
        self._waiting = waiting
        self._settings = settings
        # One thread: the folder is looked at and changed by one at a time.
        self._disk = DiskThread("packages")
        self._found = Found({}, (), ())
        self._supervisors: dict[str, Supervisor] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def start(self, serve: Serve) -> None:
        """Look at the packages that there are, and from now on every few seconds.

        Args:
            serve: serves the stream of a chaincode that was dialled.
        """
        self._serve = serve
        await self.look()
        self._looking = asyncio.create_task(self._look_on(), name="packages")

    async def stop(self) -> None:
        """End what was launched: running transactions within the grace, then the rest."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))
        self._found = Found({}, (), ())
        self._apply()
        await _all(self._ending)
        with contextlib.suppress(TimeoutError):
            # What is being written is whole or absent in any case: a disk that hangs is left alone.
            async with asyncio.timeout(self._settings.grace):
                await self._in_turn(lambda: None)
        self._disk.shutdown()

    async def launch(self, name: str) -> None:
        """Return once the chaincode is there. Raises a ChaincodeError that says why it is not."""
        if name in self._leaving:
            await asyncio.wait((self._leaving[name],))
        if supervisor := self._supervisors.get(name):
            supervisor.call()
            await self._waiting.wait_for(name, supervisor.missing)
            return
        for broken in self._found.broken:
            if broken.name == name:
                raise LaunchFailed(f"chaincode {name} has a {broken}")
        await self._unpackaged.launch(name)

    async def install(self, data: bytes) -> Package:
        """Keep a package in Fabric's form, and use it. Raises BrokenPackage, OSError."""
        package = await self._in_turn(lambda: self._packages.install(data))
        log.info("package installed", package=package.id, chaincode=package.name)
        await self.look()
        return package

    async def remove(self, package_id: str) -> None:
        """Take out a package that was installed; return once its chaincode has ended.

        Raises UnknownPackage, DroppedPackage, OSError.
        """
        await self._in_turn(lambda: self._packages.remove(package_id))
        log.info("package removed", package=package_id)
        await _all(await self.look())

    async def look(self) -> list[asyncio.Task[None]]:
        """Look at the folder, and use what is new; gives what is being ended because of that."""
        self._found = await self._in_turn(self._packages.look)
        return self._apply()

    def describe(self, chaincodes: Iterable[Chaincode]) -> list[Chaincode]:
        """Chaincodes as the peer knows them, with how they are launched, and those that only have a
        package, in alphabetical order."""
        described = {chaincode.name: chaincode for chaincode in chaincodes}
        for name, supervisor in self._supervisors.items():
            chaincode = described.setdefault(name, Chaincode(name=name))
            describe_last_error(chaincode, self._registry.tally(name))
            chaincode.launcher = _launcher(supervisor.package)
            chaincode.package_id = supervisor.package.id
            chaincode.launcher_state = supervisor.state
        for chaincode in described.values():
            chaincode.launcher = chaincode.launcher or Chaincode.EXTERNAL
        others = [
            Chaincode(
                name=package.name,
                launcher=_launcher(package),
                package_id=package.id,
                launcher_state=f"superseded by package {self._found.packages[package.name].id}",
            )
            for package in self._found.superseded
        ]
        shown = self._found.broken[:SHOWN_BROKEN]
        broken = [Chaincode(name=each.name, launcher_state=str(each)) for each in shown]
        if more := len(self._found.broken) - len(shown):
            state = f"broken package: and {more} more, in the folder chaincode.packages"
            broken.append(Chaincode(name="…", launcher_state=state))
        return sorted((*described.values(), *others, *broken), key=lambda each: each.name)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(self._settings.interval)
            try:
                await self.look()
            except Exception:
                # The next look may well succeed.
                log.exception("packages not looked at")

    def _apply(self) -> list[asyncio.Task[None]]:
        """Supervise what was found; gives what ends because of it."""
        ending = []
        for name in self._supervisors.keys() - self._found.packages.keys():
            leaving = self._end(self._supervisors.pop(name).stop())
            self._leaving[name] = leaving
            ending.append(leaving)
        for name, package in self._found.packages.items():
            supervisor = self._supervisors.get(name)
            if supervisor is None:
                self._supervisors[name] = self._supervise(package)
            elif supervisor.package != package:
                ending.append(self._end(supervisor.replace(package)))
        return ending

    def _end(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        ending = asyncio.create_task(work)
        self._ending.add(ending)
        ending.add_done_callback(self._ended)
        return ending

    def _ended(self, ending: asyncio.Task[None]) -> None:
        self._ending.discard(ending)
        for name, leaving in list(self._leaving.items()):
            if leaving is ending:
                del self._leaving[name]

    def _supervise(self, package: Package) -> Supervisor:
        return Supervisor(
            package,
            lambda wanted: self._begin(wanted, self._serve),
            self._registry,
            self._waiting,
            self._settings.pauses,
            self._settings.grace,
        )

    async def _in_turn(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)


async def _all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for all of them, also if the caller is cancelled meanwhile: they go on."""
    if pending := list(tasks):
        await asyncio.wait(pending)


def _launcher(package: Package) -> Chaincode.Launcher.ValueType:
    return Chaincode.PROCESS if isinstance(package.launch, Command) else Chaincode.SERVICE
