"""What a client may waste: a bucket that time and useful work fill again, and a pace for pings."""

import time

from selvedge_common.comm.settings import KeepaliveConfig


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


class Pace:
    """Pings that come too early are strikes, as gRPC counts them.

    Attributes:
        strikes: how many there were since something useful was done.
    """

    __slots__ = ("_config", "_last", "strikes")

    def __init__(self, config: KeepaliveConfig) -> None:
        self.strikes = 0
        self._config = config
        self._last = float("-inf")

    def too_fast(self, now: float) -> bool:
        """Count a ping, and tell whether it was one strike too many; never if none are counted."""
        early = now - self._last < self._config.min_ping_interval
        self._last = now
        self.strikes = self.strikes + 1 if early else 0
        return 0 < self._config.max_ping_strikes < self.strikes
