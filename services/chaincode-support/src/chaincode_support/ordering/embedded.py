"""The embedded ordering: one process orders a channel, into a durable log on its own disk."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from chaincode_support.ledger.trouble import can_pass, remedy
from chaincode_support.ordering import metrics
from chaincode_support.ordering.cutter import BatchSize, Cutter
from chaincode_support.ordering.errors import (
    LogDamaged,
    LogUnusable,
    OrderingClosed,
    OrderingFailed,
    OrderingFull,
)
from chaincode_support.ordering.log import MEND, BlockLog
from selvedge_common.logs import get_logger
from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil import blocks
from selvedge_protos.common import common_pb2

_log = get_logger("orderer")

# Config updates are refused, so the channel's configuration stays the genesis block's.
LAST_CONFIG = 0


@dataclass(frozen=True)
class OrderingSettings:
    """How blocks are cut, and how much may wait.

    `timeout` is in seconds, from a block's first envelope to its cut. `max_pending_messages` and
    `max_pending_bytes` bound what was taken and is not durable yet.
    """

    batch: BatchSize
    timeout: float
    max_pending_messages: int
    max_pending_bytes: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    envelope: bytes
    durable: asyncio.Future[int]


class EmbeddedOrdering:
    """Orders envelopes as they come; a single writer thread builds, signs and stores the blocks.

    Everything but that thread's work happens on the event loop. `call_later` is the loop's unless
    a test injects a clock of its own.
    """

    def __init__(
        self,
        log: BlockLog,
        channel: str,
        signer: SigningIdentity,
        settings: OrderingSettings,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
    ) -> None:
        self.channel = channel
        self.damage: str | None = None
        """What is wrong with the log and what to do about it, for operators; None for nothing."""
        self._log = log
        self._signer = signer
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._call_later = call_later or self._loop.call_later
        self._cutter: Cutter[_Waiting] = Cutter(settings.batch, lambda item: len(item.envelope))
        self._timer: asyncio.TimerHandle | None = None
        self._first_at = 0.0
        self._pending_messages = 0
        self._pending_bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ordering-{channel}")
        self._height = log.height
        self._advanced = asyncio.Event()
        self._closed = False
        self._fill_duration = metrics.block_fill_duration.labels(channel)
        self._pending_messages_metric = metrics.pending_messages.labels(channel)
        self._pending_bytes_metric = metrics.pending_bytes.labels(channel)

    @classmethod
    def open(
        cls,
        folder: Path,
        channel: str,
        signer: SigningIdentity,
        settings: OrderingSettings,
        genesis: Callable[[], common_pb2.Block],
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
    ) -> "EmbeddedOrdering":
        """Open the channel's log in `folder`; an empty one begins with the block `genesis` makes.

        Must be called on the running event loop. Raises LogUnusable.
        """
        log = BlockLog.open(folder, channel)
        try:
            if log.height == 0:
                first = genesis()
                blocks.sign_block(first, signer, LAST_CONFIG)
                log.append(first)
            return cls(log, channel, signer, settings, call_later)
        except sqlite3.Error as error:
            log.close()
            raise LogUnusable(
                f"Block 0 of channel {channel} could not be written to {log.file}: {error}. "
                + remedy(error, "Check the disk's health, then start again: nothing is lost.")
            ) from error
        except BaseException:
            log.close()
            raise

    @property
    def height(self) -> int:
        """How many blocks are durable; the next block's number."""
        return self._height

    def order(self, envelope: bytes) -> asyncio.Future[int]:
        """Take an envelope; see Ordering.order."""
        if self._closed:
            raise OrderingClosed(f"The ordering of channel {self.channel} is shutting down.")
        if self.damage is not None:
            raise LogDamaged(
                f"Channel {self.channel} takes no transactions: its ordering log is damaged; have "
                "the peer's log read, and the peer mended and started again."
            )
        if (
            self._pending_messages >= self._settings.max_pending_messages
            or self._pending_bytes + len(envelope) > self._settings.max_pending_bytes
        ):
            raise OrderingFull(
                f"The ordering of channel {self.channel} is full: {self._pending_messages} "
                f"transactions of {self._pending_bytes} bytes wait to become durable; try again."
            )
        waiting = _Waiting(envelope, self._loop.create_future())
        self._count(1, len(envelope))
        if not self._cutter.pending:
            self._first_at = time.perf_counter()
        for batch in self._cutter.add(waiting):
            self._submit(batch)
        if not self._cutter.pending:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self._call_later(self._settings.timeout, self._time_is_up)
        return waiting.durable

    def block(self, number: int) -> bytes:
        """The marshalled block `number`; see Ordering.block."""
        try:
            return self._log.block(number)
        except LogUnusable as error:
            self._on_damage(str(error))
            raise

    async def wait_for(self, height: int) -> None:
        """Return once there are at least `height` blocks."""
        while self._height < height:
            await self._advanced.wait()

    async def close(self) -> None:
        """Make durable what was taken, then close; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._time_is_up()
        await self._loop.run_in_executor(None, self._thread.shutdown)
        self._log.close()

    def discard(self) -> None:
        """Close an ordering that has taken nothing, at once."""
        self._closed = True
        self._log.close()

    def _time_is_up(self) -> None:
        self._stop_timer()
        if self._cutter.pending:
            self._submit(self._cutter.cut())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _submit(self, batch: Sequence[_Waiting]) -> None:
        # A cut may leave the envelope that caused it as the first of the next block, whose time
        # begins now.
        self._stop_timer()
        now = time.perf_counter()
        self._fill_duration.observe(now - self._first_at)
        self._first_at = now
        self._thread.submit(self._store, batch)

    def _count(self, messages: int, size: int) -> None:
        self._pending_messages += messages
        self._pending_bytes += size
        self._pending_messages_metric.set(self._pending_messages)
        self._pending_bytes_metric.set(self._pending_bytes)

    def _store(self, batch: Sequence[_Waiting]) -> None:
        """Build, sign and store a block; on the writer's thread."""
        number = self._log.height
        try:
            block = blocks.new_block(
                number, self._log.last_hash, [waiting.envelope for waiting in batch]
            )
            blocks.sign_block(block, self._signer, LAST_CONFIG)
            self._log.append(block)
        except sqlite3.Error as error:
            what = (
                f"Block {number} of channel {self.channel} could not be written to "
                f"{self._log.file}: {error}."
            )
            failure = OrderingFailed(f"{what} Check the disk's room and health, then submit again.")
            _log.error("block not ordered", channel=self.channel, block=number, error=str(failure))
            if not can_pass(error):
                self._loop.call_soon_threadsafe(self._on_damage, f"{what} {MEND}")
            self._loop.call_soon_threadsafe(self._settle, batch, failure)
        except Exception as error:
            # Whoever waits must hear of it, or would wait for ever.
            failure = OrderingFailed(
                f"Block {number} of channel {self.channel} could not be made: see the log."
            )
            _log.exception("block not ordered", channel=self.channel, block=number)
            failure.__cause__ = error
            self._loop.call_soon_threadsafe(self._settle, batch, failure)
        else:
            self._loop.call_soon_threadsafe(self._settle, batch, number)

    def _on_damage(self, sentence: str) -> None:
        if self.damage is None:
            self.damage = sentence
            _log.critical(
                "ordering log damaged: the channel takes no transactions",
                channel=self.channel,
                error=sentence,
            )

    def _settle(self, batch: Sequence[_Waiting], outcome: int | OrderingFailed) -> None:
        self._count(-len(batch), -sum(len(waiting.envelope) for waiting in batch))
        if isinstance(outcome, int):
            self._height = outcome + 1
            self._advanced.set()
            self._advanced = asyncio.Event()
        for waiting in batch:
            if waiting.durable.done():
                continue
            if isinstance(outcome, int):
                waiting.durable.set_result(outcome)
            else:
                waiting.durable.set_exception(outcome)
