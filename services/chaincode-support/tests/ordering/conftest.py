"""An ordering in a folder of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from testchannel import CHANNEL, Network

from chaincode_support.ordering import BatchSize, EmbeddedOrdering, OrderingSettings, SqliteLog

SETTINGS: dict[str, Any] = {
    "batch": BatchSize(max_messages=10, preferred_bytes=5_000),
    "timeout": 0.002,
    "max_pending_messages": 100,
    "max_pending_bytes": 1 << 20,
}


class Clock:
    """Timers that go off when a test says so."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, asyncio.TimerHandle]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        # Far beyond the end of the test; strike() runs it instead.
        timer = loop.call_later(10_000, callback)
        self.timers.append((delay, timer))
        return timer

    def armed(self) -> list[float]:
        """The delays of the timers that were neither cancelled nor struck."""
        return [delay for delay, timer in self.timers if not timer.cancelled()]

    def strike(self) -> None:
        """Let the running timer go off."""
        (timer,) = [timer for _, timer in self.timers if not timer.cancelled()]
        timer._run()


@pytest.fixture(scope="session")
def network() -> Network:
    return Network()


@pytest.fixture
def clock() -> Clock:
    return Clock()


OpenOrdering = Callable[..., Awaitable[EmbeddedOrdering]]


@pytest.fixture
async def open_ordering(tmp_path: Path, network: Network) -> AsyncIterator[OpenOrdering]:
    opened: list[EmbeddedOrdering] = []

    async def open_one(clock: Clock | None = None, **settings: Any) -> EmbeddedOrdering:
        ordering = EmbeddedOrdering.open(
            SqliteLog.open(tmp_path / "ordering", CHANNEL),
            CHANNEL,
            network.orderer,
            OrderingSettings(**{**SETTINGS, **settings}),
            network.genesis,
            clock.call_later if clock else None,
        )
        opened.append(ordering)
        return ordering

    yield open_one
    for ordering in opened:
        await ordering.close()
