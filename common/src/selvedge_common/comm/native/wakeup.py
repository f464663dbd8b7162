"""A task that waits until something has changed."""

import asyncio


class Wakeup:
    """Wakes the one task that waits, in the turn after something has changed for it."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Wait to be woken. Raises what `fail` was given."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Let the task go on, if one waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """Have this raised where the task waits, if one does."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
