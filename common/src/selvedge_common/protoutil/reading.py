"""What one Deliver request is sent, block after block."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from selvedge_common.msp import PolicyError
from selvedge_common.protoutil.metrics import DeliverRequests
from selvedge_common.protoutil.responses import ResponseSource, SendBound, Sender
from selvedge_common.protoutil.seek_request import BlockRange, SeekRefused
from selvedge_protos.common import common_pb2

# A long replay to a fast reader never waits for anything: let others have their turn in between.
_BLOCKS_A_TURN = 16

_EXPIRED = "The client's certificate has expired."


class BlockStream(Sender, Protocol):
    """A stream that blocks are sent on."""

    @property
    def full(self) -> bool:
        """Whether more is waiting to be sent than should be."""

    def send(self, message: bytes) -> None:
        """Queue a message."""

    async def drained(self) -> None:
        """Return once little is waiting to be sent."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How long a client may read.

    Attributes:
        until: when its certificate expires, by `clock`.
        check_still: raises msp.IdentityError or msp.PolicyError once who may read has changed so
            that it may not.
        clock: gives the time in seconds.
    """

    until: float
    check_still: Callable[[], None]
    clock: Callable[[], float]

    @property
    def seconds(self) -> float:
        """How much time is left."""
        return self.until - self.clock()

    def check(self) -> None:
        """Raises PolicyError, or what `check_still` does, if the client may not read any more."""
        if self.clock() > self.until:
            raise PolicyError(_EXPIRED)
        self.check_still()


class Reading:
    """One request's way through a channel.

    It reads at its own pace what there is, and is among the live readers once it has had that. One
    that cannot take the next block at once, since too much waits for it, reads on by itself.

    Args:
        stream: where blocks go.
        responses: what is sent of them.
        blocks: the first and the last.
        waits: whether it waits for blocks that are to come.
        allowance: how long the client may read.
        backlog: bounds what waits for all streams.
        counted: counts what is sent.
        turn: waits for the next turn of one that has much to read.

    Attributes:
        next: the number of the block that is sent next.
    """

    __slots__ = (
        "_allowance",
        "_backlog",
        "_counted",
        "_last",
        "_left",
        "_responses",
        "_stream",
        "_turn",
        "_waits",
        "next",
    )

    def __init__(
        self,
        stream: BlockStream,
        responses: ResponseSource,
        blocks: BlockRange,
        waits: bool,
        allowance: Allowance,
        backlog: SendBound,
        counted: DeliverRequests,
        turn: Callable[[], Awaitable[None]],
    ) -> None:
        self.next = blocks.start
        self._last = blocks.stop
        self._stream = stream
        self._responses = responses
        self._waits = waits
        self._allowance = allowance
        self._backlog = backlog
        self._counted = counted
        self._turn = turn
        self._left: asyncio.Future[None] | None = None

    @property
    def behind(self) -> int:
        """How many blocks there are that it has yet to get."""
        return max(0, min(self._last + 1, self._responses.height) - self.next)

    async def run(self) -> None:
        """Send block after block, to the last.

        Raises:
            SeekRefused: NOT_FOUND at the newest block, if it does not wait.
            BlockUnavailable: the source cannot give one.
            PolicyError, IdentityError: the client may read no more.
        """
        complete = False
        try:
            # One timer for the request, on the loop's clock, whatever is waited for.
            async with asyncio.timeout(self._allowance.seconds) as allowed:
                await self._send_all()
            complete = True
        except TimeoutError:
            if not allowed.expired():
                raise
            raise PolicyError(_EXPIRED) from None
        finally:
            self._counted.completed(complete)

    def offer(self, first: int, responses: Sequence[bytes]) -> int:
        """See LiveReader."""
        left, stream = self._left, self._stream
        if left is None or left.done():
            return 0
        if first < self.next or first + len(responses) > self._last:
            responses = responses[self.next - first : self._last + 1 - first]
        if not responses:
            return 0
        self._allowance.check()
        if not self._backlog.take(stream, sum(map(len, responses))):
            left.set_result(None)
            return 0
        for response in responses:
            stream.send(response)
        self.next += len(responses)
        if self.next > self._last or stream.full:
            left.set_result(None)
        return len(responses)

    async def _send_all(self) -> None:
        while self.next <= self._last:
            if self._stream.full:
                await self._stream.drained()
            if self.next < self._responses.height:
                await self._read()
            elif self._waits:
                await self._follow()
            else:
                raise SeekRefused(
                    common_pb2.NOT_FOUND,
                    f"The Deliver request goes on to block {self._last}, and block {self.next} is"
                    " not there yet: wait for it, or stop at the newest.",
                )

    async def _read(self) -> None:
        number, responses = self.next, self._responses
        response = responses.remembered(number) or await responses.fetch(number, self._last)
        size = len(response)
        if not self._backlog.take(self._stream, size):
            # Nothing is held while waiting: many may wait, each for another block.
            del response
            await self._backlog.wait_for(self._stream, size)
            response = responses.remembered(number) or await responses.fetch(number, self._last)
        self._allowance.check()
        self._stream.send(response)
        del response
        self._counted.blocks_sent(1)
        self.next = number + 1
        if number % _BLOCKS_A_TURN == 0:
            await self._turn()

    async def _follow(self) -> None:
        live = self._responses.live
        self._left = live.join(self, self._counted.blocks_sent)
        try:
            await self._left
        finally:
            live.leave(self)
            self._left = None
