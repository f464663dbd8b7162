"""A bound on how often something may be done."""

from __future__ import annotations

import time
from collections.abc import Callable


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
