"""Counts of calls, for whoever asks by channelz."""

import itertools
import time

_ids = itertools.count(1 << 32)  # far above those that gRPC core gives to its own


class Tally:
    """The calls of a server, or of one of its connections.

    Attributes:
        id: of the server or the connection, in this process.
        started, succeeded, failed: how many calls.
        last_started: when the last one began, in seconds since 1970; 0 before.
    """

    __slots__ = ("failed", "id", "last_started", "started", "succeeded")

    def __init__(self) -> None:
        self.id = next(_ids)
        self.started = self.succeeded = self.failed = 0
        self.last_started = 0.0

    def begin(self) -> None:
        """Count a call that begins."""
        self.started += 1
        self.last_started = time.time()

    def end(self, succeeded: bool) -> None:
        """Count a call that ended."""
        if succeeded:
            self.succeeded += 1
        else:
            self.failed += 1
