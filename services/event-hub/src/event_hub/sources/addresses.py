"""The addresses of a source: which one to try next, and when."""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass


@dataclass
class _Address:
    name: str
    failures: int = 0
    not_before: float = 0.0


class Addresses:
    """Addresses that have failed are remembered: the others are tried first, and each of them again
    only after a pause of its own, which doubles and is spread so that hubs do not come in step.

    Args:
        names: host:port, in the order in which they are tried at first.
        initial: seconds of the pause after the first failure of an address.
        longest: seconds of the longest pause.
        clock: the loop's time.
    """

    def __init__(
        self, names: Sequence[str], initial: float, longest: float, clock: Callable[[], float]
    ) -> None:
        self._addresses = [_Address(name) for name in names]
        self._initial = initial
        self._longest = longest
        self._clock = clock

    def __len__(self) -> int:
        return len(self._addresses)

    def next(self, first: str = "", without: Collection[str] = ()) -> tuple[str, float]:
        """The address to try, and how many seconds to wait before.

        Args:
            first: one that is taken before the others when it may be tried already.
            without: those that are of no use; not all.
        """
        now = self._clock()
        # Of those that may be tried already the one that failed least, or longest ago.
        best = min(
            (each for each in self._addresses if each.name not in without),
            key=lambda each: (
                max(each.not_before, now),
                each.name != first,
                each.failures,
                each.not_before,
            ),
        )
        return best.name, max(0.0, best.not_before - now)

    def failed(self, name: str) -> None:
        """An address cannot be read, or no more."""
        address = self._find(name)
        longest = min(self._longest, self._initial * 2.0 ** min(address.failures, 30))
        address.failures += 1
        address.not_before = self._clock() + longest * random.uniform(0.5, 1.0)  # noqa: S311

    def stands(self, name: str) -> None:
        """An address can be read."""
        self._find(name).failures = 0

    def _find(self, name: str) -> _Address:
        return next(address for address in self._addresses if address.name == name)
