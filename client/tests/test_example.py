"""The example of the documentation, run as it stands there."""

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from eventhouse import PATIENCE, House
from organisation import Organisation

ROOT = Path(__file__).parents[2]


def example() -> str:
    """The first program in the page about events."""
    page = (ROOT / "docs/how-to/listen-to-events.md").read_text()
    found = re.search(r"```python\n(import .*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


async def run(home: Path) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-c", example()),
        cwd=home.parent,
        env=os.environ | {"SELVEDGE_HOME": str(home)},
        stdout=PIPE,
    )


async def line_of(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        return (await process.stdout.readline()).decode()


async def test_example_tells_of_each_event_once(house: House, organisation: Organisation) -> None:
    hub = await house.hub()
    home = house.folder / "home"
    organisation.write_material(home / "crypto/users/user1")
    (home / "addresses.json").write_text(json.dumps({"events": hub.address}))
    ledger = house.ledger

    async def commit(owner: bytes) -> None:
        await ledger.commit(
            ledger.transaction("asset-transfer", event="AssetCreated", payload=owner),
            ledger.transaction("asset-transfer", event="Other"),
            ledger.transaction("other", event="AssetCreated"),
        )

    await commit(b"ada")
    first = await run(home)
    assert await line_of(first) == "block 1: AssetCreated ada\n"
    while not (house.folder / "assets.checkpoint").exists():
        await asyncio.sleep(0.005)
    first.kill()
    await first.wait()
    await commit(b"bob")
    second = await run(home)
    assert await line_of(second) == "block 2: AssetCreated bob\n"
    await commit(b"eve")
    assert await line_of(second) == "block 3: AssetCreated eve\n"
    second.kill()
    await second.wait()
