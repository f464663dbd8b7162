"""Who has had all blocks of a channel, and gets the next ones the moment they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from selvedge_common.protoutil.errors import BlockUnavailable

if TYPE_CHECKING:
    from selvedge_common.protoutil.responses import ResponseSource

# After so many messages, others have their turn.
_SENDS_A_TURN = 256
# What is told together at most, unless a single block is larger.
_BATCH_BLOCKS = 64
_BATCH_BYTES = 256 * 1024
# How many times as long as it takes to tell all readers it rests: the system calls that follow take
# longer than that. And the longest rest, in seconds.
_REST = 8
_LONGEST_REST = 0.02


class LiveReader(Protocol):
    """One who waits for the next block."""

    def offer(self, first: int, responses: Sequence[bytes]) -> int:
        """Take what is next for this reader of block `first` and those that follow it; how many it
        took. Never waits.

        What it raises is raised where this one waits, and concerns nobody else.
        """


class LiveReaders:
    """All who wait for the next block of a channel, in one kind of response.

    One task waits for all of them, so that a block costs a reader no more than its sending. Most of
    that are system calls, one for each connection, however much is sent. So it rests a while after
    each block, by how long it took to tell all readers: what has come meanwhile leaves together.
    A block that comes after the rest is told at once.

    Args:
        responses: gives them.
    """

    def __init__(self, responses: ResponseSource) -> None:
        self._responses = responses
        self._readers: dict[LiveReader, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._count: Callable[[float], None] = lambda _: None

    def __len__(self) -> int:
        """Count them."""
        return len(self._readers)

    def join(self, reader: LiveReader, count: Callable[[float], None]) -> asyncio.Future[None]:
        """Offer a reader blocks from now on, the next one first.

        Args:
            reader: has had all blocks that there are.
            count: counts blocks that were sent; the same for all who read here.

        Returns:
            For the reader to wait for, and to set when it takes no more this way. It is set, too,
            when the next block cannot be had.
        """
        self._count = count
        left = self._readers[reader] = asyncio.get_running_loop().create_future()
        if self._task is None:
            begin = self._run(self._responses.height)
            self._task = asyncio.create_task(begin, name="live readers")
        return left

    def leave(self, reader: LiveReader) -> None:
        """Offer it no more."""
        del self._readers[reader]

    async def _run(self, number: int) -> None:
        responses, clock = self._responses, asyncio.get_running_loop().time
        try:
            while self._readers:
                await responses.wait_for(number + 1)
                found = self._next(number)
                if not found:
                    # It is not in memory any more. Who waits for it reads it by itself, and does
                    # not hold up those who wait for a later one.
                    return
                whole = number + len(found) == responses.height
                began = clock()
                await self._tell(number, found)
                rest = min(_REST * (clock() - began), _LONGEST_REST)
                number += len(found)
                del found  # the next block may be long in coming
                # Who has yet to tell of more that is there has no time to rest.
                await asyncio.sleep(rest if whole else 0)
        finally:
            self._task = None
            for left in self._readers.values():
                if not left.done():
                    left.set_result(None)

    def _next(self, first: int) -> Sequence[bytes]:
        """Give block `first` and those that follow it, as far as they are in memory and not too
        much together; none if the first one is not, or cannot be given."""
        responses = self._responses
        found: list[bytes] = []
        size = 0
        for number in range(first, min(responses.height, first + _BATCH_BLOCKS)):
            try:
                response = responses.remembered(number)
            except BlockUnavailable:
                break  # whoever asks for it is told why
            if response is None or (found and size + len(response) > _BATCH_BYTES):
                break
            found.append(response)
            size += len(response)
        return found

    async def _tell(self, first: int, found: Sequence[bytes]) -> None:
        sent = in_turn = 0
        for reader, left in tuple(self._readers.items()):
            try:
                taken = reader.offer(first, found)
            except Exception as error:
                # One that left and came back in a turn of others waits for another future.
                if not left.done():
                    left.set_exception(error)
                continue
            sent += taken
            in_turn += taken
            if in_turn >= _SENDS_A_TURN:
                in_turn = 0
                await asyncio.sleep(0)
        self._count(sent)
