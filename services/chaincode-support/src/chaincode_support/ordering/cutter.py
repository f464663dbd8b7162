"""When a block is full.

Follows release 2.5, orderer/common/blockcutter/blockcutter.go.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class BatchSize:
    """Limits of a block's transactions; an item larger than `preferred_bytes` is alone in one."""

    max_messages: int
    preferred_bytes: int


class Cutter(Generic[Item]):
    """Collects items until their batch is full; time is its user's business."""

    def __init__(self, size: BatchSize, bytes_of: Callable[[Item], int]) -> None:
        self._size = size
        self._bytes_of = bytes_of
        self._pending: list[Item] = []
        self._pending_bytes = 0

    @property
    def pending(self) -> int:
        """How many items wait for their batch to be cut."""
        return len(self._pending)

    def add(self, item: Item) -> list[list[Item]]:
        """Add an item; gives the batches, at most two, that are full because of it."""
        size = self._bytes_of(item)
        full: list[list[Item]] = []
        if self._pending and self._pending_bytes + size > self._size.preferred_bytes:
            full.append(self.cut())
        self._pending.append(item)
        self._pending_bytes += size
        if size > self._size.preferred_bytes or len(self._pending) >= self._size.max_messages:
            full.append(self.cut())
        return full

    def cut(self) -> list[Item]:
        """The batch so far, which may be empty; the next one begins."""
        batch = self._pending
        self._pending = []
        self._pending_bytes = 0
        return batch
