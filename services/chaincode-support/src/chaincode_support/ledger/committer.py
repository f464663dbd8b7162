"""The committer: follows the ordering, validates every block and commits it to the ledger."""

import asyncio
import time

from chaincode_support.ledger import metrics
from chaincode_support.ledger.errors import BlockRefused, LedgerError
from chaincode_support.ledger.ledger import Ledger
from chaincode_support.ledger.transaction import CheckedTransaction
from chaincode_support.ledger.validation import Validator
from chaincode_support.ordering.interface import Ordering
from selvedge_common.logs import get_logger
from selvedge_common.protoutil import blocks
from selvedge_common.protoutil.errors import MalformedBlock
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2

_log = get_logger("committer")


class CommitterStopped(LedgerError):
    """Committing has stopped; the cause is the message."""


class Committer:
    """Takes a channel from the ledger's height to the ordering's, and follows it from there.

    A block that cannot be committed stops it for good: the next one would not fit the state. What
    is wrong is in the log and fails the health check until the service is started anew.
    """

    def __init__(self, ordering: Ordering, ledger: Ledger, validator: Validator) -> None:
        self._ordering = ordering
        self._ledger = ledger
        self._validator = validator
        self._failure: str | None = None

    async def run(self) -> None:
        """Follow the ordering until cancelled. Raises CommitterStopped."""
        number = self._ledger.height
        try:
            self._check_same_chain()
            async for stored in self._ordering.blocks(number):
                await self._commit(number, stored)
                number += 1
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failure = (
                f"Committing to channel {self._ledger.channel} stopped at block {number}: {error}"
            )
            _log.critical(
                "committing stopped",
                channel=self._ledger.channel,
                block=number,
                error=str(error),
                exc_info=error,
            )
            raise CommitterStopped(self._failure) from error

    def check_health(self) -> None:
        """Raises CommitterStopped once committing has stopped."""
        if self._failure is not None:
            raise CommitterStopped(self._failure)

    def _check_same_chain(self) -> None:
        """A log that was lost or replaced is found now, not when it has grown long enough."""
        height, ordered = self._ledger.height, self._ordering.height
        if height > ordered:
            raise BlockRefused(
                f"the ledger has {height} blocks and the ordering log {ordered}. "
                "Restore the ordering log from a backup, or remove both to begin anew."
            )
        if height == 0:
            return
        newest = blocks.parse_block(self._ordering.block(height - 1))
        if blocks.header_hash(newest.header) != self._ledger.last_hash:
            raise BlockRefused(
                f"block {height - 1} of the ordering log is not the ledger's. "
                "Restore the one that belongs to the other, or remove both to begin anew."
            )

    async def _commit(self, number: int, stored: bytes) -> None:
        started = time.perf_counter()
        block = blocks.parse_block(stored)
        if block.header.number != number:
            raise BlockRefused(f"The ordering gave block {block.header.number} for {number}.")
        if blocks.data_hash(block.data.data) != block.header.data_hash:
            raise MalformedBlock(f"The data of block {number} does not fit its header.")
        # The first block is this service's own and has no signatures yet: it says whose count.
        checked = _genesis(block) if number == 0 else await self._validator.check(block)
        await self._ledger.commit(block, checked)
        metrics.block_processing_time.labels(self._ledger.channel).observe(
            time.perf_counter() - started
        )


def _genesis(block: common_pb2.Block) -> list[CheckedTransaction]:
    return [
        CheckedTransaction(transaction_pb2.VALID, type=common_pb2.CONFIG) for _ in block.data.data
    ]
