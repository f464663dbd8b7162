"""Peers that launch chaincode, stopped at the end of a test with all that they started."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launching import BOUNDS, PAUSES, PLAINTEXT, PROCESSES, Launching, StartLaunching
from rawshim import CHANNEL, METHOD, PATIENCE, SETTINGS, Peer

from chaincode_support.chaincode.definitions import Definitions
from chaincode_support.chaincode.known_names import KnownNames
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.support import ChaincodeSupport
from chaincode_support.launchers.external import ExternalLauncher
from chaincode_support.launchers.launchers import Launchers, LaunchSettings
from chaincode_support.launchers.package import Command, Package
from chaincode_support.launchers.packages import PackageBounds, Packages
from chaincode_support.launchers.process import ChaincodeProcess
from chaincode_support.launchers.service import ChaincodeConnection, Serve, ServiceSettings
from chaincode_support.launchers.supervisor import Attempt, Pauses
from chaincode_support.launchers.waiting import Waiting
from chaincode_support.ledger import Ledger
from selvedge_common.comm import GRPCServer, ServerConfig

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[StartLaunching]:
    """Starts peers; keyword arguments override PROCESSES, `stream` those of the streams."""
    running: list[tuple[Launching, GRPCServer]] = []

    async def begin(
        *,
        server: ServerConfig = PLAINTEXT,
        startup_timeout: float = PATIENCE,
        max_waiting: int = 100,
        bounds: PackageBounds = BOUNDS,
        pauses: Pauses = PAUSES,
        tls: Path = tmp_path,
        stream: dict[str, Any] | None = None,
        interval: float = 3600.0,
        **overrides: Any,
    ) -> Launching:
        listener = GRPCServer("localhost:0", server)
        # The certificates of tests are for that name.
        address = f"localhost:{listener.address.rpartition(':')[2]}"
        registry = Registry(KnownNames())
        waiting = Waiting(registry, startup_timeout, max_waiting)
        processes = replace(PROCESSES, address=address, **overrides)

        def attempt(package: Package, serve: Serve) -> Attempt:
            if isinstance(package.launch, Command):
                return ChaincodeProcess(package, package.launch, processes)
            settings = ServiceSettings(tls, server)
            return ChaincodeConnection(package, package.launch, settings, serve)

        folder = tmp_path / f"packages{len(running)}"
        launchers = Launchers(
            Packages(folder, bounds, {"peername": "peer0"}),
            ExternalLauncher(registry, waiting, address),
            attempt,
            registry,
            waiting,
            LaunchSettings(interval, pauses, processes.grace),
        )
        support = ChaincodeSupport(
            registry,
            launchers,
            Definitions(()),
            {},
            replace(SETTINGS, **(stream or {})),
            max_streams=10,
            max_unregistered=10,
        )
        listener.add_message_stream(METHOD, support.register)
        await listener.start()
        ledger = Ledger.open(tmp_path / f"ledger{len(running)}", CHANNEL)
        launching = Launching(Peer(address, ledger, support), launchers, folder)
        await launchers.start(support.serve)
        running.append((launching, listener))
        return launching

    yield begin
    for launching, listener in running:
        await launching.launchers.stop()
        await listener.stop(0)
        for simulator in launching.peer.simulators:
            simulator.close()
        launching.peer.ledger.close()


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.005)

    return wait
