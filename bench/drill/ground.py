"""Where the drills take place.

```
source-1 ─┬─ wire ─ hub-1 ─ wire ─┬─ consumers
source-2 ─┴─ wire ─ hub-2 ─ wire ─┘
```

Each hub has a wire to each source.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.drill import publisher
from bench.drill.account import Untrue
from bench.drill.company import Company
from bench.drill.consumers import KINDS
from bench.drill.network import Wire
from bench.drill.parts import Hub, Source
from bench.drill.story import Story
from bench.house import free_address
from selvedge_client import User

_BLOCK = 0.02
"""Seconds from one block to the next, on average."""


@dataclass(frozen=True)
class Ground:
    """Everything that runs.

    Attributes:
        story: what the sources tell.
        sources: both; the hubs prefer the first.
        hubs: both.
        company: who listens.
        producer: who publishes, and listens too.
    """

    story: Story
    sources: Sequence[Source]
    hubs: Sequence[Hub]
    company: Company
    producer: User

    def check_logs(self) -> None:
        """Raises Untrue: a hub logged an error that nobody foresaw."""
        for hub in self.hubs:
            for fault in hub.faults():
                raise Untrue(f"{hub.name} logged a fault: {fault}")

    def tell(self, chosen: random.Random) -> None:
        """Make the next block."""
        block = self.story.go_on(chosen)
        for source in self.sources:
            source.append(block)

    async def flow(self, seed: int) -> None:
        """Make blocks, now faster and now slower, for as long as it runs."""
        chosen = random.Random(seed)  # noqa: S311 - moments, not secrets
        while True:
            self.tell(chosen)
            await asyncio.sleep(chosen.choice((0, 1, 1, 2)) * _BLOCK)


@asynccontextmanager
async def ground(home: Path, folder: Path, transport: str, seed: int) -> AsyncIterator[Ground]:
    """Everything started, with the consumers that stay: of each kind one that uses the first hub,
    and one that uses both.

    Args:
        home: of a `selvedge up` that ran there, with the certificate of the producer.
        folder: for blocks, positions and logs.
        transport: of the hubs.
        seed: of what consumers do.
    """
    own = home / "crypto" / "users" / "user1"
    user = User.read(own / "msp", own / "tls")
    producer = User.read(own / "msp", home / "crypto" / "producers" / publisher.NAME)
    async with AsyncExitStack() as stack:
        sources = [Source(folder, f"source-{number}") for number in (1, 2)]
        hubs = []
        for number in (1, 2):
            address = free_address()
            ways = [
                await stack.enter_async_context(Wire(source.process.address)) for source in sources
            ]
            front = await stack.enter_async_context(Wire(address))
            name, material = f"hub-{number}", home / "event-hub"
            hubs.append(Hub(folder, name, material, address, ways, front, transport))
        story = Story(home)
        company = Company(story, user)
        made = Ground(story, sources, hubs, company, producer)
        chosen = random.Random(seed)  # noqa: S311 - moments, not secrets
        made.tell(chosen)
        try:
            for source in sources:
                await source.process.start()
            await asyncio.gather(*(hub.process.start() for hub in hubs))
            for used, kind in itertools.product((hubs[:1], hubs), KINDS):
                company.add(kind, used, chosen.getrandbits(32))
            yield made
        finally:
            await company.leave()
            for hub in hubs:
                await hub.process.kill()
            for source in sources:
                await source.process.kill()
