"""What a client may waste: a bucket that time and useful work fill again."""

import time


class Allowance:
    """So much at first and at most; what is spent comes back with time, and by earning it.

    Args:
        most: how much can be spent at once.
        rate: how much comes back in a second.
    """

    __slots__ = ("_left", "_most", "_rate", "_since")

    def __init__(self, most: float, rate: float) -> None:
        self._most = self._left = most
        self._rate = rate
        self._since = time.monotonic()

    def spend(self, cost: float) -> bool:
        """Take some away, and tell whether there was enough."""
        self._left -= cost
        if self._left >= 0:
            return True
        # Only now, so that no frame costs a look at the clock.
        now = time.monotonic()
        before = min(self._most, self._left + cost + (now - self._since) * self._rate)
        self._left = before - cost
        self._since = now
        return self._left >= 0

    def earn(self, amount: float) -> None:
        """Put some back."""
        self._left = min(self._most, self._left + amount)
