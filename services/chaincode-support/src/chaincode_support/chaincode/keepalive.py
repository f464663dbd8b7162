"""KEEPALIVE messages into the silence of a chaincode stream.

Off unless `chaincode.keepalive` is set: Node shims of 2.2 and 2.5 exit when they get one. It is
for ways through proxies that drop quiet connections; gRPC's own pings do better where they pass.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Keepalive:
    """Calls `send` whenever `interval` seconds passed without a word; 0 or less never does."""

    def __init__(self, interval: float, send: Callable[[], None]) -> None:
        self._interval = interval
        self._send = send
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to listen for silence. To be called on the event loop."""
        if self._interval > 0:
            self.touch()
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)

    def touch(self) -> None:
        """Something was said just now."""
        self._last = time.monotonic()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        # One timer that looks back, rather than one that every message sets anew.
        silent = time.monotonic() - self._last
        if silent >= self._interval:
            self._send()
            self.touch()
            silent = 0.0
        self._timer = asyncio.get_running_loop().call_later(self._interval - silent, self._look)
