"""A client that is told to end does, whatever its servers do at that moment."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

import pytest

from selvedge_client import NotReachable, User
from selvedge_client.link import Link, Links


class Fault:
    """A server whose first call fails just when it is cancelled, as grpc.aio tells of that: of the
    failure alone."""

    def __init__(self) -> None:
        self.calls = 0

    async def ask(self, link: Link) -> str:
        self.calls += 1
        if self.calls == 1:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            raise NotReachable(link.address, "it has just gone away", answered=True)
        return "an answer"

    async def attempt(self, link: Link) -> AsyncGenerator[str, None]:
        yield await self.ask(link)


async def first(links: Links, fault: Fault) -> str:
    return await links.first(fault.ask)


async def followed(links: Links, fault: Fault) -> str:
    return await anext(links.follow(fault.attempt))


@pytest.mark.parametrize("read", [first, followed])
async def test_cancellation_is_not_lost_when_the_call_fails_meanwhile(
    user: Callable[[], User], read: Callable[[Links, Fault], Awaitable[str]]
) -> None:
    fault, links = Fault(), Links(["localhost:1", "localhost:2"], user, None)

    async def run() -> str:
        return await read(links, fault)

    reading = asyncio.create_task(run())
    while not fault.calls:
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert fault.calls == 1


async def test_who_was_cancelled_before_may_still_ask(user: Callable[[], User]) -> None:
    """As a task does that is told to end, and first says how far it is."""
    links = Links(["localhost:1", "localhost:2"], user, None)
    asked: list[str] = []

    async def ask(link: Link) -> str:
        asked.append(link.address)
        if len(asked) == 1:
            raise NotReachable(link.address, "it has just gone away", answered=True)
        return "an answer"

    async def run() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await links.first(ask)

    running = asyncio.create_task(run())
    await asyncio.sleep(0)
    running.cancel()
    assert await running == "an answer"
    assert asked == ["localhost:1", "localhost:2"]
