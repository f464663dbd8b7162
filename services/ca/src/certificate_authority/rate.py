"""Bounds on how often something may be done."""

from __future__ import annotations

import functools
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_CLIENTS = 10_000


class Rate:
    """A token bucket: `burst` at once after silence, `per_second` in the long run.

    Args:
        per_second: above 0.
        burst: at least 1.
        clock: seconds, never going back.
    """

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._then = clock()

    def take(self) -> bool:
        """Uses one up; False where none is left."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._then) * self._per_second)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class RateByClient:
    """A `Rate` for each client's address; the address that failed longest ago is forgotten first.

    Args:
        per_second, burst, clock: of each address, as in `Rate`.
    """

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._new = functools.partial(Rate, per_second, burst, clock)
        self._rates: OrderedDict[str, Rate] = OrderedDict()

    def take(self, peer: str) -> bool:
        """Uses one up for the address of `peer`, which is in gRPC's form; False at none left."""
        address = peer.rpartition(":")[0]  # without the port, which is another each time
        rate = self._rates.setdefault(address, self._new())
        self._rates.move_to_end(address)
        if len(self._rates) > _MOST_CLIENTS:
            self._rates.popitem(last=False)
        return rate.take()
