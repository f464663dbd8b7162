"""How long a chaincode that keeps ending is left alone."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from chaincode_support.chaincode.known_names import KnownNames
from chaincode_support.chaincode.registry import Registry
from chaincode_support.launchers.package import Command, Package
from chaincode_support.launchers.supervisor import Pauses, Supervisor
from chaincode_support.launchers.waiting import Waiting

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]

PAUSES = Pauses(first=0.01, longest=0.04)
COMMAND = Command(("mycc",), {}, Path(), Path(), None)
PACKAGE = Package("mycc:abc", "mycc", "mycc", "1.0", Path("mycc"), COMMAND)


class Ending:
    """An attempt that lasts so many seconds, and has its number as the cause of its end."""

    again = "try again"
    fails_at_once = False
    reached = True
    doing = "trying"
    last_words = ""
    details = ""
    begun = 0

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        Ending.begun += 1
        self._number = Ending.begun

    async def run(self) -> str:
        await asyncio.sleep(self._seconds)
        return f"ended for the time {self._number}"

    def stop(self) -> None:
        """It ends anyway."""


@pytest.fixture
async def supervise() -> AsyncIterator[Callable[..., Supervisor]]:
    """Supervises attempts that last as long as they are told to, from the first call on."""
    supervisors: list[Supervisor] = []

    def begin(*seconds: float) -> Supervisor:
        lasting = list(seconds)
        registry = Registry(KnownNames())
        supervisor = Supervisor(
            PACKAGE,
            lambda _: Ending(lasting.pop(0) if lasting else 0.0),
            registry,
            Waiting(registry, 1.0, 1),
            PAUSES,
            grace=1.0,
        )
        supervisors.append(supervisor)
        supervisor.call()
        return supervisor

    yield begin
    for supervisor in supervisors:
        await supervisor.stop()


@pytest.fixture
def pauses(caplog: pytest.LogCaptureFixture) -> Callable[[], list[float]]:
    """The pauses so far, as the log tells of them."""
    caplog.set_level(logging.WARNING, "chaincode")

    def told() -> list[float]:
        # What structlog hands to the standard library is the event itself.
        events: list[Any] = [record.msg for record in caplog.records]
        return [event["again_in"] for event in events if event["event"] == "chaincode not there"]

    return told


def is_about(pause: float, seconds: float) -> bool:
    """Give or take the quarter that it varies by, and the rounding of the log."""
    return 0.75 * seconds - 0.001 <= pause <= 1.25 * seconds + 0.001


async def test_pauses_double_up_to_the_longest_and_vary(
    supervise: Callable[..., Supervisor], pauses: Callable[[], list[float]], eventually: Eventually
) -> None:
    supervise()
    await eventually(lambda: len(pauses()) >= 8)
    told = pauses()
    for pause, seconds in zip(told, (0.01, 0.02, 0.04, 0.04, 0.04, 0.04), strict=False):
        assert is_about(pause, seconds), told
    assert len(set(told[2:])) > 1


async def test_one_that_lasted_begins_with_the_first_pause_again(
    supervise: Callable[..., Supervisor], pauses: Callable[[], list[float]], eventually: Eventually
) -> None:
    supervise(0.0, 0.0, 0.0, 0.05)
    await eventually(lambda: len(pauses()) >= 5)
    told = pauses()
    for pause, seconds in zip(told, (0.01, 0.02, 0.04, 0.01, 0.02), strict=False):
        assert is_about(pause, seconds), told
