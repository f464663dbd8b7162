"""Hubs that are killed and applications that are, while the ledger grows: everything once."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from eventhouse import House, eventually
from organisation import Organisation

from selvedge_client import Client, User

CHANNEL = "mychannel"
BLOCKS = 60
LISTENER = Path(__file__).with_name("listener.py")
GetUser = Callable[[], User]


@dataclass
class Hubs:
    """Where they are, and how often one was killed so far."""

    addresses: list[str]
    killings: int = 0


@asynccontextmanager
async def growing(house: House, committed: list[str]) -> AsyncIterator[None]:
    """Commit blocks as fast as it goes; gives the transactions with an event that is asked for."""

    async def grow() -> None:
        for number in range(BLOCKS):
            block = [
                house.ledger.transaction(event=random.choice(["Told", "Other"]))
                for _ in range(random.randrange(4))
            ]
            if number == BLOCKS - 1:
                block.append(house.ledger.transaction(event="Told, and the last"))
            await house.ledger.commit(*block)
            committed.extend(each.txid for each in block if b"Told" in each.envelope)
            await asyncio.sleep(random.uniform(0, 0.03))

    task = asyncio.create_task(grow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def killing(house: House, organisation: Organisation) -> AsyncIterator[Hubs]:
    """Two hubs, of which one at a time is killed now and then and started again."""
    folders = [house.folder / name for name in ("first", "second")]
    for folder in folders:
        organisation.write_material(folder)
    hubs = [await house.hub(PEER_FILESYSTEMPATH=str(folder)) for folder in folders]
    killed = Hubs([hub.address for hub in hubs])

    async def kill() -> None:
        while True:
            await asyncio.sleep(random.uniform(0.05, 0.3))
            which = random.randrange(len(hubs))
            await hubs[which].kill()
            killed.killings += 1
            await asyncio.sleep(random.uniform(0, 0.1))
            hubs[which] = await house.hub(
                PEER_FILESYSTEMPATH=str(folders[which]), PEER_EVENTS_ADDRESS=killed.addresses[which]
            )

    task = asyncio.create_task(kill())
    try:
        yield killed
        assert killed.killings
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("seed", range(3))
async def test_killed_hubs_cost_no_event_and_repeat_none(
    house: House, organisation: Organisation, user: GetUser, seed: int
) -> None:
    random.seed(seed)
    committed: list[str] = []
    heard: list[str] = []
    async with killing(house, organisation) as hubs, growing(house, committed):
        events = Client(hubs.addresses, user).subscribe(CHANNEL, names=["Told*"], start=0)
        async with aclosing(events):
            async for event in events:
                heard.append(event.txid)
                if event.name == "Told, and the last":
                    break
    assert heard == committed


async def test_killed_hubs_cost_no_block_and_repeat_none(
    house: House, organisation: Organisation, user: GetUser
) -> None:
    random.seed(4)
    heard: list[int] = []
    async with killing(house, organisation) as hubs, growing(house, []):
        blocks = Client(hubs.addresses, user).blocks(CHANNEL, start=0, until=BLOCKS)
        heard = [block.header.number async for block in blocks]
    assert heard == list(range(BLOCKS + 1))


async def test_application_that_is_killed_goes_on_at_its_checkpoint(
    house: House, organisation: Organisation, tmp_path: Path
) -> None:
    """What it noted right before it was killed it may be told again, and nothing else."""
    random.seed(5)
    committed: list[str] = []
    noted = tmp_path / "noted"
    noted.touch()
    killed = 0

    def heard() -> list[str]:
        return noted.read_text().splitlines()

    async with killing(house, organisation) as hubs, growing(house, committed):
        while True:
            enough = len(heard()) + 5
            application = await asyncio.create_subprocess_exec(
                sys.executable, LISTENER, house.folder, noted, *hubs.addresses
            )
            if killed < 3:
                # Once it has heard more, so that each run comes further.
                await eventually(partial(lambda enough: len(heard()) > enough, enough))
                application.kill()
                killed += 1
            if not await application.wait():
                break
    once = [txid for txid, before in zip(heard(), ["", *heard()], strict=False) if txid != before]
    assert once == committed
    assert len(heard()) - len(once) <= killed
