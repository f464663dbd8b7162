"""The life of `selvedge up`: start everything at once, watch over it, stop it in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from selvedge_cli.addresses import save_addresses
from selvedge_cli.errors import CommandError
from selvedge_cli.local.claim import check_ports
from selvedge_cli.local.process import ServiceDied, ServiceProcess, start
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


class Supervisor:
    """Runs the services of one home.

    Args:
        settings: with an absolute home.
        sample: the sample chaincode to run too, if any.
        tell: prints a sentence about what is going on.
    """

    def __init__(
        self, settings: Settings, sample: Path | None, tell: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._sample = sample
        self._tell = tell
        self._running: list[ServiceProcess] = []
        self._deaths: set[asyncio.Task[ServiceDied]] = set()
        self._stop = asyncio.Event()

    async def run(self, when_ready: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run everything until a signal, or until a service ends by itself.

        Args:
            when_ready: awaited once everything serves.

        Raises:
            CommandError: a port is taken, or a service did not come up, or died.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        planned = services(self._settings.home, self._settings.addresses, self._settings.channel)
        check_ports(planned)
        save_addresses(self._settings.home, self._settings.addresses)
        (self._settings.home / "ca.yaml").write_text(ca_settings())
        try:
            await self._unless_stopped(self._bring_up(planned, when_ready))
            await self._unless_stopped(self._stop.wait())
        finally:
            await self._stop_all()

    async def _bring_up(
        self, planned: list[Service], when_ready: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        # All at once: each waits for the ca by itself, and their imports overlap.
        ca, *others = [await self._start(service) for service in planned]
        # Imported only now, while the services do the same.
        from selvedge_common.enrolment import EnrolmentError

        try:
            async with asyncio.timeout(START_UP_TIMEOUT):
                await ca.healthy()
                await asyncio.gather(
                    *(process.healthy() for process in others),
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
        await when_ready()

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
        await self._start(sample_chaincode(self._sample, material, self._settings.addresses))

    async def _start(self, service: Service) -> ServiceProcess:
        process = await start(service, self._settings.home / "logs" / f"{service.name}.log")
        self._running.append(process)
        self._deaths.add(asyncio.create_task(process.ended()))
        return process

    async def _unless_stopped(self, work: Coroutine[Any, Any, Any]) -> None:
        """Await something, unless a signal comes or a service dies before it is done."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            while not working.done() and not stopping.done():
                await asyncio.wait(
                    {working, stopping, *self._deaths}, return_when=asyncio.FIRST_COMPLETED
                )
                dead = next((death for death in self._deaths if death.done()), None)
                if dead is not None and not stopping.done():
                    raise dead.result()
        finally:
            working.cancel()
            stopping.cancel()
            if working.done() and not working.cancelled():
                working.result()

    async def _stop_all(self) -> None:
        """End the newest first: nothing loses what it talks to before it has ended itself."""
        for death in self._deaths:
            death.cancel()
        for process in reversed(self._running):
            if not await process.stop():
                self._tell(f"{process.name} did not end in time and was killed")

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for process in self._running:
                process.kill()
        self._stop.set()
