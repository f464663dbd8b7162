"""The embedded ordering: this process cuts a channel's blocks and appends them to a log.

Others may append to the same log. A block is made for the end of the log, and appended only if it
still is the end: when another one has come first, its envelopes are cut again, behind that.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from chaincode_support.ordering import metrics
from chaincode_support.ordering.cutter import BatchSize, Cutter
from chaincode_support.ordering.errors import (
    LogDamaged,
    LogUnusable,
    LogUnwritable,
    OrderingClosed,
    OrderingFailed,
    OrderingFull,
    PositionTaken,
)
from chaincode_support.ordering.interface import BlockLog
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
        self._channel = channel
        self.damage: str | None = None
        """See Ordering.damage."""
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
        self._ordered_bytes = 0
        self._advanced = asyncio.Event()
        self._closed = False
        self._fill_duration = metrics.block_fill_duration.labels(channel)
        self._pending_messages_metric = metrics.pending_messages.labels(channel)
        self._pending_bytes_metric = metrics.pending_bytes.labels(channel)
        # In this order: what comes in between is told twice, and not never.
        log.follow(
            lambda height, size: self._loop.call_soon_threadsafe(self._advance, height, size)
        )
        self._height = log.tip.height

    @classmethod
    def open(
        cls,
        log: BlockLog,
        channel: str,
        signer: SigningIdentity,
        settings: OrderingSettings,
        genesis: Callable[[], common_pb2.Block],
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
    ) -> Self:
        """Order a channel into its log; an empty one begins with the block that `genesis` makes.

        The log is closed with the ordering, and when this fails. Must be called on the running
        event loop. Raises LogUnusable.
        """
        try:
            if not log.tip.height:
                first = genesis()
                blocks.sign_block(first, signer, LAST_CONFIG)
                with suppress(PositionTaken):  # another's counts as well
                    log.append(first)
            return cls(log, channel, signer, settings, call_later)
        except LogUnwritable as error:
            log.close()
            raise LogUnusable(f"{error} Then start again: nothing is lost.") from error
        except BaseException:
            log.close()
            raise

    @property
    def height(self) -> int:
        """How many blocks are durable; the next block's number."""
        return self._height

    @property
    def ordered_bytes(self) -> int:
        """How many bytes have become durable since this was opened."""
        return self._ordered_bytes

    def order(self, envelope: bytes) -> asyncio.Future[int]:
        """Take an envelope; see Ordering.order."""
        if self._closed:
            raise OrderingClosed(f"The ordering of channel {self._channel} is shutting down.")
        if self.damage is not None:
            raise LogDamaged(self._refusal())
        if (
            self._pending_messages >= self._settings.max_pending_messages
            or self._pending_bytes + len(envelope) > self._settings.max_pending_bytes
        ):
            raise OrderingFull(
                f"The ordering of channel {self._channel} is full: {self._pending_messages} "
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

    def found_damaged(self, number: int, error: Exception) -> LogUnusable:
        """See Ordering.found_damaged."""
        damage = self._log.damaged(number, str(error))
        self._on_damage(str(damage))
        return damage

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
        """Make a batch durable, and tell; on the writer's thread."""
        outcome: int | OrderingFailed
        try:
            outcome = self._append([waiting.envelope for waiting in batch])
        except LogUnwritable as error:
            outcome = OrderingFailed(
                f"The ordering log of channel {self._channel} could not be written: the "
                "transaction is not known to be ordered. Submit the same again later: it is valid "
                "once at most."
            )
            _log.error("block not ordered", channel=self._channel, error=str(error))
        except LogUnusable as error:
            outcome = OrderingFailed(self._refusal())
            self._loop.call_soon_threadsafe(self._on_damage, str(error))
        except Exception as error:
            # Whoever waits must hear of it, or would wait for ever.
            outcome = OrderingFailed(
                f"A block of channel {self._channel} could not be made: have the peer's log read."
            )
            outcome.__cause__ = error
            _log.exception("block not ordered", channel=self._channel)
        self._loop.call_soon_threadsafe(self._settle, batch, outcome)

    def _append(self, envelopes: Sequence[bytes]) -> int:
        """The number of the block, durable now, that holds the envelopes."""
        while True:
            height, last_hash = self._log.tip
            block = blocks.new_block(height, last_hash, envelopes)
            blocks.sign_block(block, self._signer, LAST_CONFIG)
            try:
                self._log.append(block)
            except PositionTaken as error:
                if self._log.tip.height <= height:
                    raise LogUnwritable(f"{error} It shows no block there.") from error
                _log.debug("block is cut again", channel=self._channel, reason=str(error))
            else:
                return height

    def _advance(self, height: int, size: int) -> None:
        if height <= self._height:
            return  # there already when this was opened
        self._height = height
        self._ordered_bytes += size
        self._advanced.set()
        self._advanced = asyncio.Event()

    def _settle(self, batch: Sequence[_Waiting], outcome: int | OrderingFailed) -> None:
        self._count(-len(batch), -sum(len(waiting.envelope) for waiting in batch))
        for waiting in batch:
            if waiting.durable.done():
                continue
            if isinstance(outcome, int):
                waiting.durable.set_result(outcome)
            else:
                waiting.durable.set_exception(outcome)

    def _on_damage(self, sentence: str) -> None:
        if self.damage is None:
            self.damage = sentence
            _log.critical(
                "ordering log damaged: the channel takes no transactions",
                channel=self._channel,
                error=sentence,
            )

    def _refusal(self) -> str:
        return (
            f"Channel {self._channel} takes no transactions: its ordering log is damaged; have the "
            "peer's log read, and the peer mended and started again."
        )
