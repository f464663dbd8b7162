"""The life of `selvedge up`: start everything at once, watch over it, stop it in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from selvedge_cli.addresses import save_addresses
from selvedge_cli.errors import CommandError
from selvedge_cli.local.claim import check_ports
from selvedge_cli.local.process import ServiceProcess, start
from selvedge_cli.local.services import (
    CHAINCODE,
    USERS,
    Service,
    ca_settings,
    enrolment_file,
    sample_chaincode,
    services,
)
from selvedge_cli.options import Settings

START_UP_TIMEOUT = 60.0
"""Seconds for all services to serve."""
MAX_DEATHS, DEATHS_WINDOW = 4, 30.0
"""A service that ends more often than that, in so many seconds, is not started again."""


class Supervisor:
    """Runs the services of one home.

    Args:
        settings: with an absolute home.
        sample: the sample chaincode to run too, if any.
        tell: prints a sentence about something unexpected.
        step: prints how far the start has come.
    """

    def __init__(
        self,
        settings: Settings,
        sample: Path | None,
        tell: Callable[[str], None],
        step: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._sample = sample
        self._tell = tell
        self._step = step
        # In the order in which they were started first, which is that of their needs.
        self._running: list[ServiceProcess] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._dead: asyncio.Queue[ServiceProcess] = asyncio.Queue()
        self._stop = asyncio.Event()

    async def run(self, when_ready: Callable[[], Awaitable[None]]) -> None:
        """Run everything until a signal; what dies then is started again.

        Args:
            when_ready: awaited once everything serves.

        Raises:
            CommandError: a port is taken, or a service did not come up, or died again and again.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        home = self._settings.home
        planned = services(home, self._settings.addresses, self._settings.channel)
        check_ports(planned)
        save_addresses(home, self._settings.addresses)
        (home / "ca.yaml").write_text(ca_settings())
        try:
            await _first(self._stop.wait(), self._live(planned, when_ready))
        finally:
            await self._stop_all()

    async def _live(
        self, planned: list[Service], when_ready: Callable[[], Awaitable[None]]
    ) -> None:
        await _first(self._bring_up(planned), self._any_death())
        await _first(when_ready(), self._any_death())
        await self._watch()

    async def _bring_up(self, planned: list[Service]) -> None:
        # All at once: each waits for the ca by itself, and their imports overlap.
        for service in planned:
            self._step(f"starting {service.name} ...")
            self._running.append(await self._start(service))
        # Imported only now, while the services do the same.
        from selvedge_common.enrolment import EnrolmentError

        ca, *others = self._running
        try:
            async with asyncio.timeout(START_UP_TIMEOUT):
                await self._serves(ca)
                await asyncio.gather(
                    *(self._serves(process) for process in others),
                    *(self._enrol_user(name) for name in USERS),
                    self._start_sample(),
                )
        except TimeoutError:
            raise CommandError(
                f"the services did not serve within {START_UP_TIMEOUT:g} s: "
                f"{self._settings.home / 'logs'} says what they wait for"
            ) from None
        except EnrolmentError as error:
            raise CommandError(str(error)) from error

    async def _serves(self, process: ServiceProcess) -> None:
        await process.healthy()
        self._step(f"{process.name} serves")

    async def _enrol_user(self, name: str) -> None:
        from selvedge_common.enrolment import enrol_user

        home = self._settings.home
        await enrol_user(
            home / "crypto" / "users" / name,
            enrolment_file(home, name),
            profile=USERS[name][0],
            ca_address=self._settings.addresses.ca,
        )

    async def _start_sample(self) -> None:
        if self._sample is None:
            return
        from selvedge_common.enrolment import enrol_chaincode

        home = self._settings.home
        material = home / "crypto" / "chaincodes" / CHAINCODE
        await enrol_chaincode(
            material,
            enrolment_file(home, CHAINCODE),
            name=CHAINCODE,
            ca_address=self._settings.addresses.ca,
        )
        self._step(f"starting {CHAINCODE} ...")
        sample = sample_chaincode(self._sample, material, self._settings.addresses)
        self._running.append(await self._start(sample))

    async def _start(self, service: Service) -> ServiceProcess:
        process = await start(service, self._settings.home / "logs" / f"{service.name}.log")
        self._watchers.append(asyncio.create_task(self._report_end(process)))
        return process

    async def _report_end(self, process: ServiceProcess) -> None:
        await process.ended()
        self._dead.put_nowait(process)

    async def _any_death(self) -> None:
        raise (await self._dead.get()).death()

    async def _watch(self) -> None:
        """Start again what dies, for as long as that helps."""
        clock = asyncio.get_running_loop().time
        deaths: dict[str, list[float]] = {}
        while True:
            dead = await self._dead.get()
            recent = [at for at in deaths.get(dead.name, []) if clock() - at < DEATHS_WINDOW]
            deaths[dead.name] = [*recent, clock()]
            if len(recent) == MAX_DEATHS:
                raise dead.death()
            self._tell(f"{dead.death()}\nselvedge: {dead.name} is started again")
            self._running[self._running.index(dead)] = await self._start(dead.service)

    async def _stop_all(self) -> None:
        """End the last first: nothing loses what it talks to before it has ended itself."""
        for watcher in self._watchers:
            watcher.cancel()
        for process in reversed(self._running):
            if not await process.stop():
                self._tell(f"{process.name} did not end in time and was killed")

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for process in self._running:
                process.kill()
        self._stop.set()


async def _first(*work: Awaitable[object]) -> None:
    """Await the first of these to end, and raise what it raised; the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
