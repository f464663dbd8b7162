"""Turns for those who have much to do, so that whoever has little does not wait for them."""

import asyncio
from collections import deque

# How many go on in one turn of the event loop. All else that is ready goes on in between.
AT_ONCE = 8


class Turns:
    """Lets those who ask go on in the order in which they asked, a few in each turn of the loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    async def take(self) -> None:
        """Return when it is the caller's turn."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        given = 0
        while self._waiting and given < AT_ONCE:
            turn = self._waiting.popleft()
            # Who was cancelled meanwhile does not use up a turn.
            if not turn.done():
                turn.set_result(None)
                given += 1
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._give)
