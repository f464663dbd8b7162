"""How far a command is, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TextIO

# Seconds from one line to the next: at a terminal it is the same line, elsewhere each stays.
_AT_A_TERMINAL, _ELSEWHERE = 0.1, 5.0
_CLEAR = "\r\x1b[K"


class Progress(Protocol):
    """What is told how far something is."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` are done; the last call of a step has them equal."""


class ProgressLine:
    """Prints it: now and then, and always when a step is done."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._every = _AT_A_TERMINAL if self._terminal else _ELSEWHERE
        self._next = clock() + (0 if self._terminal else _ELSEWHERE)

    def __call__(self, what: str, done: int, total: int) -> None:
        """See Progress."""
        now = self._clock()
        if done != total and now < self._next:
            return
        self._next = now + self._every
        line = f"{what}: {done} of {total}"
        if not self._terminal:
            self._stream.write(f"{line}\n")
        else:
            self._stream.write(f"{_CLEAR}{line}" + "\n" * (done == total))
        self._stream.flush()
