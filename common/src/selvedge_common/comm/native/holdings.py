"""What is held for clients, by connection, and bounded for the process."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selvedge_common.comm.native.stream import Stream

# Above the limit so much is let go at once, as a part of it: finding who holds the most is work.
_SLACK = 0.1


class Pool:
    """Bytes of one kind in the whole process.

    Attributes:
        bytes: how many there are.
        holders: the connections that hold some.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.holders: set[Holdings] = set()


class Holdings:
    """What is held of a pool for the streams of one connection.

    Args:
        pool: the process's.
        limit: bytes that may be held in the process.
        streams: those of the connection.
        held_of: what is held for one of them.
        relieve: ends one of them, which gives back what it holds.
    """

    def __init__(
        self,
        pool: Pool,
        limit: int,
        streams: Callable[[], "Iterable[Stream]"],
        held_of: "Callable[[Stream], int]",
        relieve: "Callable[[Stream], None]",
    ) -> None:
        self.bytes = 0
        self._pool = pool
        self._limit = limit
        self._streams = streams
        self._held_of = held_of
        self._relieve = relieve

    def add(self, grown: int) -> None:
        """Count more, or less. Above the limit, who holds the most is relieved of it: by connection
        first, since many small streams of one client are no better than a large one."""
        pool = self._pool
        self.bytes += grown
        pool.bytes += grown
        if not self.bytes:
            pool.holders.discard(self)
            return
        pool.holders.add(self)
        if grown > 0 and pool.bytes > self._limit:
            max(pool.holders, key=lambda holder: holder.bytes).let_go()

    def let_go(self) -> None:
        """End streams, those that hold the most first, until there is some room again."""
        enough = self._limit * (1 - _SLACK)
        for stream in sorted(self._streams(), key=self._held_of, reverse=True):
            if self._pool.bytes <= enough or not self._held_of(stream):
                return
            self._relieve(stream)
