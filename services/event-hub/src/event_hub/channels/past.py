"""Older blocks that were read from the source again, bounded in bytes."""

from collections import OrderedDict

from event_hub.channels.block import ChannelBlock


class PastBlocks:
    """Blocks from anywhere in a channel; the one that nobody asked for longest makes room.

    Args:
        max_bytes: what they may take in memory together (``source.historyBytes``); the last one is
            kept in any case.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._blocks: OrderedDict[int, ChannelBlock] = OrderedDict()
        self._bytes = 0
        self._unasked: set[int] = set()
        self._lost = False

    @property
    def held_bytes(self) -> int:
        """What they take now."""
        return self._bytes

    def __contains__(self, number: int) -> bool:
        return number in self._blocks

    def get(self, number: int) -> ChannelBlock | None:
        """The block of that number, if it is here; it was asked for now."""
        block = self._blocks.get(number)
        if block is not None:
            self._blocks.move_to_end(number)
            self._unasked.discard(number)
        return block

    def peek(self, number: int) -> ChannelBlock | None:
        """The block of that number, if it is here, without asking for it."""
        return self._blocks.get(number)

    def add(self, block: ChannelBlock, *, asked: bool) -> None:
        """Take a block that is not here, and whether anybody has asked for it."""
        self._blocks[block.number] = block
        if not asked:
            self._unasked.add(block.number)
        block.on_growth = self._grown
        self._grown(block.held_bytes)

    def lost(self) -> bool:
        """Whether, since this was asked last, a block had to go before anybody asked for it."""
        lost, self._lost = self._lost, False
        return lost

    def _grown(self, size: int) -> None:
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._blocks) > 1:
            number, oldest = self._blocks.popitem(last=False)
            oldest.on_growth = None
            self._bytes -= oldest.held_bytes
            if number in self._unasked:
                self._unasked.remove(number)
                self._lost = True
