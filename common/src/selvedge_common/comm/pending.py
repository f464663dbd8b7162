"""What waits to be sent in all message streams of the process, bounded together."""

import operator
from typing import Protocol

from selvedge_common.comm.metrics import PENDING

MESSAGE_COST = 64
"""What a queued message takes beside its bytes, so that a bound also holds for empty ones."""


class Waiting(Protocol):
    """A message stream, as the process sees it."""

    @property
    def pending_bytes(self) -> int:
        """What waits in it."""

    def relieve(self, sentence: str) -> None:
        """End it, since too much waits in the process and most of it there."""


class Process:
    """All message streams that are open, and the bytes that wait in them."""

    def __init__(self) -> None:
        self.pending = 0
        self.streams: set[Waiting] = set()

    def check(self, limit: int) -> None:
        """End the stream with the most waiting if more than `limit` bytes wait altogether."""
        if self.pending <= limit:
            return
        most = max(self.streams, key=_pending_of)
        most.relieve(
            f"{self.pending} bytes are waiting for all clients of this process, above the"
            f" limit of {limit} bytes, and most of them, {most.pending_bytes}, for this one;"
            " read faster.",
        )


PROCESS = Process()
_pending_of = operator.attrgetter("pending_bytes")
PENDING.set_function(lambda: PROCESS.pending)
