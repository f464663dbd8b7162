"""The consumers that are there, and whether they have heard everything."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from bench.drill.account import Account, Untrue
from bench.drill.consumers import KINDS, Consumer
from bench.drill.parts import Hub
from bench.drill.story import Story
from selvedge_client import User

SETTLED = 60.0
"""Seconds in which everybody has to have heard everything, once nothing fails any more."""
_LOOK = 0.01


class Company:
    """Consumers that follow a story by way of hubs.

    Args:
        story: what there is to hear.
        user: who all of them are.

    Attributes:
        heard: words that those heard who have left.
    """

    def __init__(self, story: Story, user: User) -> None:
        self.heard = 0
        self._story = story
        self._user = user
        self._present: dict[Consumer, tuple[Sequence[Hub], asyncio.Task[None]]] = {}

    def add(
        self,
        kind: str,
        hubs: Sequence[Hub],
        seed: int,
        *,
        start: int = 0,
        pace: float = 0.0,
    ) -> Consumer:
        """Have a consumer come.

        Args:
            kind: one of KINDS.
            hubs: those that it uses, in turn.
            seed: of when it leaves and how long it takes.
            start: its first block.
            pace: as for Consumer.
        """
        how = KINDS[kind]
        who = f"{kind} by {' and '.join(hub.name for hub in hubs)}, from block {start} on"
        account = Account(who, how.chapters(self._story), start)
        addresses = [hub.front.address for hub in hubs]
        chosen = random.Random(seed)  # noqa: S311 - moments, not secrets
        consumer = how.make(account, self._user, addresses, chosen, pace)
        self._present[consumer] = (hubs, asyncio.create_task(consumer.follow(), name=who))
        return consumer

    async def settle(self) -> None:
        """Return once everybody who has a hub has heard everything.

        Raises:
            Untrue: somebody has not in time, or heard something else.
        """
        try:
            async with asyncio.timeout(SETTLED):
                while late := self._late():  # noqa: ASYNC110 - it is many accounts
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            places = "; ".join(f"{each.who} is in block {each.block}" for each in late)
            raise Untrue(
                f"of {self._story.height} blocks not all were told within {SETTLED:g} s: {places}"
            ) from None

    async def leave(self, *consumers: Consumer) -> None:
        """Have these go, or all if none is named."""
        leaving = []
        for consumer in consumers or tuple(self._present):
            _, following = self._present.pop(consumer)
            following.cancel()
            leaving.append(following)
            self.heard += consumer.account.heard
        await asyncio.gather(*leaving, return_exceptions=True)

    def _late(self) -> list[Account]:
        """Those who have yet to hear something. Raises Untrue: somebody heard something else."""
        late = []
        for consumer, (hubs, following) in self._present.items():
            if following.done():
                following.result()
            account = consumer.account
            if account.block < self._story.height and any(hub.process.alive for hub in hubs):
                late.append(account)
        return late
