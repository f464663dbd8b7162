"""What a started chaincode prints: into the peer's log, line by line, within bounds."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from chaincode_support.launchers import metrics
from selvedge_common.logs import get_logger
from selvedge_common.quoting import printable

# So many of the last lines are shown of a chaincode that ended: the cause as a rule is there.
_LAST_LINES = 3
_LAST_CHARACTERS = 300
# What Fabric's shims colour their lines with, also where a line was cut.
_COLOUR = re.compile(rb"\x1b\[[0-9;]*(m|$)")


@dataclass(frozen=True, slots=True)
class OutputBounds:
    """What of the output reaches the log.

    Attributes:
        line: bytes of a line; of a longer one the start is logged.
        lines: lines a second; the others are counted.
    """

    line: int
    lines: int


class Output(asyncio.Protocol):
    """The reading end of a pipe that a chaincode prints into.

    It is always read, and at once: a chaincode must not hang on what it prints. What comes faster
    than it is logged is thrown away without a closer look, so that a flood costs the peer little.
    """

    def __init__(
        self, chaincode: str, bounds: OutputBounds, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._chaincode = chaincode
        self._log = get_logger(f"chaincode.{chaincode}", bounded=False)
        self._bounds = bounds
        self._clock = clock
        self._begun = bytearray()
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._second = clock()
        self._logged = 0
        self._dropped = 0
        self.ended = asyncio.Event()

    @property
    def last_lines(self) -> str:
        """The end of what was printed, on one line; empty if nothing was."""
        return " | ".join(self._last)

    def data_received(self, data: bytes) -> None:
        start = 0
        while (end := data.find(b"\n", start)) >= 0 and self._may_log():
            self._keep(data[start:end])
            self._log_line()
            start = end + 1
        if end < 0:
            self._keep(data[start:])
        else:
            self._drop(data[start:])

    def connection_lost(self, error: Exception | None) -> None:
        if self._begun:
            self._log_line()
        self._tell_dropped()
        self.ended.set()

    def _may_log(self) -> bool:
        now = self._clock()
        if now - self._second >= 1:
            self._tell_dropped()
            self._second, self._logged = now, 0
        return self._logged < self._bounds.lines

    def _keep(self, part: bytes) -> None:
        """Add to the line that has begun; one byte more than is shown tells that there is more."""
        self._begun += part[: self._bounds.line + 1 - len(self._begun)]

    def _log_line(self) -> None:
        line = _COLOUR.sub(b"", self._begun).rstrip(b"\r")
        self._begun.clear()
        if line:
            self._logged += 1
            self._last.append(printable(line, _LAST_CHARACTERS))
            self._log.info(_shown(line, self._bounds.line))

    def _drop(self, data: bytes) -> None:
        """Throw whole lines away, but remember the last ones."""
        self._dropped += data.count(b"\n")
        rest = data.rfind(b"\n")
        tail_at = max(0, rest - (_LAST_LINES + 1) * _LAST_CHARACTERS)
        tail = (b"" if tail_at else bytes(self._begun)) + data[tail_at:rest]
        for line in tail.split(b"\n")[-_LAST_LINES:]:
            if line:
                self._last.append(printable(line, _LAST_CHARACTERS))
        self._begun.clear()
        self._keep(data[rest + 1 :])

    def _tell_dropped(self) -> None:
        if self._dropped:
            metrics.output_lines_dropped.labels(self._chaincode).inc(self._dropped)
            self._log.warning(
                "output dropped: more lines a second than chaincode.limits.outputLines",
                lines=self._dropped,
                limit=self._bounds.lines,
            )
            self._dropped = 0


def _shown(line: bytes, limit: int) -> str:
    text = line[:limit].decode(errors="backslashreplace") + "…" * (len(line) > limit)
    return printable(text, len(text))
