"""The blocks that were read last, of one channel, bounded in bytes."""

from collections import deque

from event_hub.channels.block import ChannelBlock


class RecentBlocks:
    """The newest blocks without a gap; the oldest makes room.

    Args:
        max_bytes: what they may take in memory together (``peer.events.recentBytes``); the newest
            one is kept in any case.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._blocks: deque[ChannelBlock] = deque()
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """What they take now."""
        return self._bytes

    def add(self, block: ChannelBlock) -> None:
        """Take the block that follows the newest one."""
        self._blocks.append(block)
        block.on_growth = self._grown
        self._grown(block.held_bytes)

    def get(self, number: int) -> ChannelBlock | None:
        """The block of that number, if it is here."""
        if not self._blocks:
            return None
        index = number - self._blocks[0].number
        return self._blocks[index] if 0 <= index < len(self._blocks) else None

    def _grown(self, size: int) -> None:
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._blocks) > 1:
            oldest = self._blocks.popleft()
            oldest.on_growth = None
            self._bytes -= oldest.held_bytes
