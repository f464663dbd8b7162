"""The committer: follows the ordering, validates every block and commits it to the ledger."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from chaincode_support.ledger import metrics
from chaincode_support.ledger.errors import BlockRefused, CommitFailed, LedgerError
from chaincode_support.ledger.ledger import Ledger
from chaincode_support.ledger.transaction import CheckedTransaction
from chaincode_support.ledger.validation import Validator
from chaincode_support.ordering.errors import CommittingStopped, LedgerBehind, LogUnreadable
from chaincode_support.ordering.interface import OrderedBlocks
from selvedge_common.logs import get_logger
from selvedge_common.protoutil import blocks
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2

_log = get_logger("committer")

_T = TypeVar("_T")


def pauses() -> Iterator[float]:
    """Seconds between attempts to commit a block: 0.1, then the double up to 5."""
    pause = 0.1
    while True:
        yield pause
        pause = min(2 * pause, 5.0)


class CommitterStopped(LedgerError):
    """Committing has stopped; the cause is the message."""


class CommitterFailing(LedgerError):
    """The next block cannot be committed now and is tried again; the cause is the message."""


class Committer:
    """Takes a channel from the ledger's height to the ordering's, and follows it from there.

    Trouble that may pass, such as a full disk, is waited out: the same block is tried again until
    it goes through. A block that can never be committed stops it for good: the next one would not
    fit the state. Either fails the health check, and the log says what is wrong.
    """

    def __init__(
        self,
        ordering: OrderedBlocks,
        ledger: Ledger,
        validator: Validator,
        *,
        blocks_ahead: int,
        bytes_ahead: int,
    ) -> None:
        """`blocks_ahead`, `bytes_ahead`: how much may be ordered and not committed yet."""
        self._ordering = ordering
        self._ledger = ledger
        self._validator = validator
        self._blocks_ahead = blocks_ahead
        self._bytes_ahead = bytes_ahead
        # Only what is ordered from now on: nothing can be submitted before the rest is committed.
        self._start = ordering.height
        self._committed_bytes = ordering.ordered_bytes
        self._failure: str | None = None
        # The kinds of trouble since the last block that went through, the newest last.
        self._troubles: list[str] = []
        self._failing = metrics.commit_failing.labels(ledger.channel)
        self._failing.set(0)
        metrics.blocks_behind.labels(ledger.channel).set_function(self._blocks_behind)
        metrics.bytes_behind.labels(ledger.channel).set_function(self._bytes_behind)

    async def run(self) -> None:
        """Follow the ordering until cancelled. Raises CommitterStopped."""
        try:
            await self._persist(self._check_same_chain)
            while True:
                number = self._ledger.height
                await self._ordering.wait_for(number + 1)
                await self._follow(number)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            channel, number = self._ledger.channel, self._ledger.height
            self._failure = f"Committing to channel {channel} stopped at block {number}: {error}"
            self._failing.set(1)
            _log.critical(
                "committing stopped",
                channel=channel,
                block=number,
                error=str(error),
                exc_info=error,
            )
            raise CommitterStopped(self._failure) from error

    def check_health(self) -> None:
        """Raises CommitterStopped once it stopped, CommitterFailing while a block is retried."""
        if self._failure is not None:
            raise CommitterStopped(self._failure)
        if self._troubles:
            raise CommitterFailing(f"{self._troubles[-1]} It is tried again until it succeeds.")

    def check_committing(self) -> None:
        """For whoever orders: is what is ordered now going to be committed, and soon?

        Raises CommittingStopped and LedgerBehind, whose sentences are for clients.
        """
        channel = self._ledger.channel
        if self._failure is not None:
            raise CommittingStopped(
                f"Channel {channel} takes no transactions: committing stopped at block "
                f"{self._ledger.height}, so they would be ordered in vain; have the peer's log "
                "read, and the peer mended and started again."
            )
        for behind, most, what in (
            (self._blocks_behind(), self._blocks_ahead, "blocks"),
            (self._bytes_behind(), self._bytes_ahead, "bytes"),
        ):
            if behind >= most:
                raise LedgerBehind(
                    f"The ledger of channel {channel} is {behind} {what} behind its ordering, the "
                    f"limit of orderer.limits.{what}Ahead ({most}); try again later."
                )

    def _blocks_behind(self) -> int:
        return self._ordering.height - self._ledger.height

    def _bytes_behind(self) -> int:
        return self._ordering.ordered_bytes - self._committed_bytes

    async def _persist(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do the work, again and again while what prevents it may pass."""
        waits = pauses()
        while True:
            try:
                done = await work()
            except (CommitFailed, LogUnreadable) as error:
                self._report(str(error))
            except MemoryError:
                self._report(
                    f"There is no memory left for block {self._ledger.height} of channel "
                    f"{self._ledger.channel}: give the service more, or cut smaller blocks."
                )
            else:
                self._recover()
                return done
            await asyncio.sleep(next(waits))

    def _report(self, trouble: str) -> None:
        self._failing.set(1)
        if trouble in self._troubles:
            self._troubles.remove(trouble)
        else:
            _log.error(
                "committing fails and is tried again", channel=self._ledger.channel, error=trouble
            )
        self._troubles.append(trouble)

    def _recover(self) -> None:
        if self._troubles:
            self._troubles.clear()
            self._failing.set(0)
            _log.info(
                "committing goes on", channel=self._ledger.channel, height=self._ledger.height
            )

    async def _check_same_chain(self) -> None:
        """A log that was lost or replaced is found now, not when it has grown long enough."""
        height, ordered = self._ledger.height, self._ordering.height
        if height > ordered:
            raise BlockRefused(
                f"the ledger has {height} blocks and the ordering log {ordered}. "
                "Restore the ordering log from a backup, or remove both to begin anew."
            )
        if height == 0:
            return
        newest = await asyncio.to_thread(
            lambda: blocks.parse_block(self._ordering.block(height - 1))
        )
        if blocks.header_hash(newest.header) != self._ledger.last_hash:
            raise BlockRefused(
                f"block {height - 1} of the ordering log is not the ledger's. "
                "Restore the one that belongs to the other, or remove both to begin anew."
            )

    async def _follow(self, number: int) -> None:
        """Take the next block, which is ordered, all the way into the ledger."""
        # Nothing is checked while the block before is written: with a thread for each core it gains
        # nothing (unless the disk is slow and blocks are small), for all share one interpreter, and
        # clients hear of the block before three times as late.
        started = time.perf_counter()
        block, size = await self._persist(
            lambda: self._validator.open(number, self._ordering.block)
        )
        # The first block is this service's own and has no signatures yet: it says whose count.
        checked = (
            _genesis(block)
            if number == 0
            else await self._persist(lambda: self._validator.check(block))
        )
        await self._persist(lambda: self._ledger.commit(block, checked))
        if number >= self._start:
            self._committed_bytes += size
        metrics.block_processing_time.labels(self._ledger.channel).observe(
            time.perf_counter() - started
        )


def _genesis(block: common_pb2.Block) -> list[CheckedTransaction]:
    return [
        CheckedTransaction(transaction_pb2.VALID, type=common_pb2.CONFIG) for _ in block.data.data
    ]
