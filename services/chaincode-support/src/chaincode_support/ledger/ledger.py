"""A channel's ledger: its chain of blocks, the state they led to, history and indexes."""

import asyncio
import sqlite3
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, cast

from google.protobuf.message import DecodeError

from chaincode_support.ledger import index, metrics
from chaincode_support.ledger.admission import Admission
from chaincode_support.ledger.errors import (
    BlockNotFound,
    BlockRefused,
    CommitFailed,
    LedgerClosed,
    LedgerUnusable,
    TransactionNotFound,
)
from chaincode_support.ledger.simulator import Simulator
from chaincode_support.ledger.store import (
    Readers,
    SnapshotPool,
    channel_file,
    insert_block,
    open_writer,
)
from chaincode_support.ledger.stored_block import read_blocks, read_envelope
from chaincode_support.ledger.transaction import CheckedTransaction
from chaincode_support.ledger.trouble import REBUILD, Soundness, can_pass
from chaincode_support.ledger.write_ahead_log import DEFAULT_MAX_BYTES, WriteAheadLog
from selvedge_common.logs import get_logger
from selvedge_common.protoutil import blocks, metadata
from selvedge_common.protoutil.errors import ValidationCode
from selvedge_common.quoting import printable, quoted
from selvedge_protos.common import common_pb2
from selvedge_protos.common.ledger_pb2 import BlockchainInfo
from selvedge_protos.peer import transaction_pb2

_log = get_logger("ledger")

DEFAULT_MAX_SIMULATIONS = 128
DEFAULT_MAX_SIMULATION_BYTES = 10 << 20

# Codes of transactions whose endorsements were found to suffice.
_ENDORSED = frozenset(
    {
        transaction_pb2.VALID,
        transaction_pb2.MVCC_READ_CONFLICT,
        transaction_pb2.PHANTOM_READ_CONFLICT,
    }
)

_BLOCK = "SELECT bytes FROM block WHERE number = ?"
_BLOCK_BY_HASH = "SELECT bytes FROM block WHERE hash = ?"
_BLOCK_BY_TXID = "SELECT bytes FROM block WHERE number = (SELECT block FROM tx WHERE txid = ?)"
_TRANSACTION = "SELECT block, position, code FROM tx WHERE txid = ?"


class Ledger:
    """One channel's ledger in one SQLite file.

    Everything but commit() and wait_for() is synchronous and reads on the caller's thread; what
    looks up something in blocks may be called on any thread, the rest belongs to the event loop. A
    block, its state changes, history and indexes are one SQLite transaction that a single writer
    thread makes durable, so a crash leaves all of a block or none of it.
    """

    def __init__(
        self,
        file: Path,
        channel: str,
        writer: sqlite3.Connection,
        max_simulations: int,
        max_simulation_bytes: int,
        max_wal_bytes: int,
    ) -> None:
        self.channel = channel
        self.file = file
        self._writer = writer
        self._wal = WriteAheadLog(
            file, channel, writer, max_wal_bytes, metrics.wal_bytes.labels(channel)
        )
        self._readers = Readers(file)
        self._max_simulation_bytes = max_simulation_bytes
        self._soundness = Soundness(file, channel)
        self._snapshots = SnapshotPool(file, channel, max_simulations, self._soundness)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ledger-{channel}")
        self._height, self._last_hash = _tip(writer)
        self._newest = b""  # the block, once one was committed
        self._advanced = asyncio.Event()
        self._closed = False
        metrics.blockchain_height.labels(channel).set(self._height)

    @classmethod
    def open(
        cls,
        folder: Path,
        channel: str,
        *,
        synchronous: str = "FULL",
        max_simulations: int = DEFAULT_MAX_SIMULATIONS,
        max_simulation_bytes: int = DEFAULT_MAX_SIMULATION_BYTES,
        max_wal_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Self:
        """Open the channel's ledger in `folder`, or make an empty one.

        `synchronous` is SQLite's pragma (FULL: a commit is on the disk before it is told of);
        `max_simulations` bounds the snapshots out at a time, `max_simulation_bytes` what each
        reads and writes, `max_wal_bytes` the write-ahead log, but for what a snapshot still needs
        of it. Raises LedgerUnusable.
        """
        file = channel_file(folder, channel)
        writer = open_writer(file, channel, synchronous)
        try:
            _check_newest_block(writer, file)
            return cls(file, channel, writer, max_simulations, max_simulation_bytes, max_wal_bytes)
        except (sqlite3.Error, UnicodeError) as error:
            writer.close()
            raise LedgerUnusable(
                f"The ledger file {file} of channel {channel} cannot be read: {error}. {REBUILD}"
            ) from error
        except LedgerUnusable:
            writer.close()
            raise

    @property
    def height(self) -> int:
        """How many blocks there are; the next block's number."""
        return self._height

    @property
    def last_hash(self) -> bytes:
        """Hash of the newest block's header; empty while there is no block."""
        return self._last_hash

    @property
    def damage(self) -> str | None:
        """What reading has shown to be wrong with the file, for operators; None for nothing."""
        return self._soundness.damage

    # All that read raise LedgerUnusable when the file is damaged, ReadFailed for what may pass.

    def block(self, number: int) -> bytes:
        """The marshalled common.Block as it was committed. Raises BlockNotFound."""
        if not 0 <= number < self._height:
            raise BlockNotFound(
                f"Channel {self.channel} has no block {number}: its height is {self._height}."
            )
        row = self._row(_BLOCK, number)
        if row is None:
            raise self._soundness.found(f"block {number} is not in it")
        return cast("bytes", row[0])

    def blocks(self, first: int, last: int, max_bytes: int) -> Generator[bytes, None, None]:
        """Read the marshalled block `first` and, while that costs little, those that follow it.

        The last one is `last`, which is below `height`, or the one with which they have `max_bytes`
        together. Until the generator is closed it holds a snapshot.
        """
        number = first
        # An error may be of the block after the one that it is raised for. The next read begins
        # with that one, and tells.
        with suppress(sqlite3.Error), self._readers.connection() as connection:
            for found, block in read_blocks(connection, first, last, max_bytes):
                if found != number:
                    break
                yield block
                number += 1
        if number == first:
            yield self.block(first)

    def held(self, number: int) -> bytes | None:
        """The same without reading, if it is the newest one and was committed by this process."""
        return self._newest or None if number == self._height - 1 else None

    def found_damaged(self, number: int, error: Exception) -> LedgerUnusable:
        """What to raise for a block that was read and is none, as `error` says; on any thread."""
        return self._soundness.found(f"block {number}: {str(error).rstrip('.')}")

    def block_by_hash(self, header_hash: bytes) -> bytes:
        """The marshalled common.Block whose header has this hash. Raises BlockNotFound."""
        row = self._row(_BLOCK_BY_HASH, header_hash)
        if row is None:
            raise BlockNotFound(
                f"Channel {self.channel} has no block with the header hash "
                f"{printable(header_hash.hex())}: give the SHA-256 of its header in DER."
            )
        return cast("bytes", row[0])

    def block_by_txid(self, txid: str) -> bytes:
        """The marshalled common.Block that holds a transaction. Raises TransactionNotFound."""
        row = self._row(_BLOCK_BY_TXID, txid)
        if row is None:
            raise self._no_transaction(txid)
        return cast("bytes", row[0])

    def transaction(self, txid: str) -> tuple[bytes, int]:
        """(marshalled common.Envelope, validation code) of a transaction, valid or not.

        Of several with one id it is the first. Raises TransactionNotFound.
        """
        row = self._row(_TRANSACTION, txid)
        if row is None:
            raise self._no_transaction(txid)
        number, position, code = row
        try:
            with self._readers.connection() as connection:
                return read_envelope(connection, number, position), code
        except sqlite3.Error as error:
            raise self._soundness.failed(error) from error

    def chain_info(self) -> BlockchainInfo:
        """Height, and the header hashes of the newest block and of the one before it."""
        before = self._row("SELECT hash FROM block WHERE number = ?", self._height - 2)
        return BlockchainInfo(
            height=self._height,
            currentBlockHash=self._last_hash,
            previousBlockHash=b"" if before is None else before[0],
        )

    def block_number_of(self, txid: str) -> tuple[int, int] | None:
        """(block number, validation code) of a transaction, or None when it is not in a block."""
        return cast(
            "tuple[int, int] | None", self._row("SELECT block, code FROM tx WHERE txid = ?", txid)
        )

    def has_transaction(self, txid: str) -> bool:
        """Whether a block holds this transaction, valid or not."""
        return self.block_number_of(txid) is not None

    def simulator(self, txid: str, chaincode: str = "") -> Simulator:
        """A simulation on a snapshot of this moment, for a chaincode; the caller must close it.

        Raises LedgerBusy when as many as the settings allow are running, LedgerUnusable once the
        file was found damaged.
        """
        self._soundness.check()
        return Simulator(self._snapshots, txid, chaincode, self._max_simulation_bytes)

    async def wait_for(self, height: int) -> None:
        """Return once there are at least `height` blocks."""
        while self._height < height:
            await self._advanced.wait()

    async def commit(self, block: common_pb2.Block, checked: Sequence[CheckedTransaction]) -> None:
        """Make the next block durable, with what its valid transactions write.

        `checked` has one entry for each of the block's envelopes. Duplicates, endorsements that do
        not suffice, version conflicts and phantoms are found here; the final codes go into
        `block`'s TRANSACTIONS_FILTER.
        Raises BlockRefused when the block does not follow the last one, CommitFailed when it could
        not be written now, LedgerUnusable when it never will be; in all cases nothing has changed.
        """
        loop = asyncio.get_running_loop()
        try:
            written = self._thread.submit(self._write, loop, block, checked)
        except RuntimeError as error:
            raise LedgerClosed(f"The ledger of channel {self.channel} is closed.") from error
        # Shielded: a write that has begun ends, whoever stopped waiting for it.
        await asyncio.shield(asyncio.wrap_future(written))

    def close(self) -> None:
        """Wait for a commit under way, then close; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._thread.shutdown()
        self._snapshots.close()
        self._readers.close()
        self._writer.close()

    def _row(self, query: str, *parameters: object) -> tuple[Any, ...] | None:
        try:
            with self._readers.connection() as connection:
                row = connection.execute(query, parameters).fetchone()
        except sqlite3.Error as error:
            raise self._soundness.failed(error) from error
        return cast("tuple[Any, ...] | None", row)

    def _no_transaction(self, txid: str) -> TransactionNotFound:
        return TransactionNotFound(
            f"Channel {self.channel} has no block with the transaction {quoted(txid)}: check the "
            "id, or wait until it is committed."
        )

    # What follows runs on the writer's thread.

    def _write(
        self,
        loop: asyncio.AbstractEventLoop,
        block: common_pb2.Block,
        checked: Sequence[CheckedTransaction],
    ) -> None:
        started = time.perf_counter()
        number = block.header.number
        if self.damage is not None:
            raise LedgerUnusable(self.damage)
        try:
            if self._writer.in_transaction:  # undoing the last attempt failed as well
                self._writer.execute("ROLLBACK")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                self._refuse_unless_next(block, checked)
                codes = self._apply(number, checked)
                applied = time.perf_counter()
                metadata.set_validation_codes(block, codes)
                marshalled = insert_block(self._writer, block)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    with suppress(sqlite3.Error):  # the first failure is the one to tell
                        self._writer.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            what = (
                f"Block {number} of channel {self.channel} could not be written to {self.file}: "
                f"{error}."
            )
            if can_pass(error):
                raise CommitFailed(
                    f"{what} Check the disk's room and health, and that nobody else holds the file."
                ) from error
            self._soundness.failed(error)
            raise LedgerUnusable(f"{what} {REBUILD}") from error
        finished = time.perf_counter()
        metrics.statedb_commit_time.labels(self.channel).observe(applied - started)
        metrics.blockstorage_commit_time.labels(self.channel).observe(finished - applied)
        loop.call_soon_threadsafe(
            self._advance, number + 1, blocks.header_hash(block.header), marshalled
        )
        for transaction, code in zip(checked, codes, strict=True):
            metrics.transaction_count.labels(
                self.channel,
                transaction.type_name,
                # Others have no endorsements that count: a client could make any number of names.
                (transaction.chaincode if code in _ENDORSED else "") or "unknown",
                transaction_pb2.TxValidationCode.Name(code),
            ).inc()
        self._wal.trim()

    def _refuse_unless_next(
        self, block: common_pb2.Block, checked: Sequence[CheckedTransaction]
    ) -> None:
        height, last_hash = _tip(self._writer)
        if block.header.number != height:
            raise BlockRefused(
                f"Channel {self.channel} waits for block {height}, not {block.header.number}."
            )
        if block.header.previous_hash != last_hash:
            raise BlockRefused(
                f"Block {height} of channel {self.channel} does not follow the last one: its "
                "previous hash is another block's. The ordering log and the ledger do not belong "
                "together."
            )
        if len(checked) != len(block.data.data):
            raise BlockRefused(
                f"Block {height} of channel {self.channel} has {len(block.data.data)} transactions "
                f"and {len(checked)} of them were checked."
            )

    def _apply(self, number: int, checked: Sequence[CheckedTransaction]) -> list[ValidationCode]:
        codes = Admission(self._writer, self.channel, number).admit(checked)
        index.add(self._writer, number, [transaction.txid for transaction in checked], codes)
        return codes

    # Back on the event loop.

    def _advance(self, height: int, digest: bytes, newest: bytes) -> None:
        self._height = height
        self._last_hash = digest
        self._newest = newest
        metrics.blockchain_height.labels(self.channel).set(height)
        self._advanced.set()
        self._advanced = asyncio.Event()


def _tip(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """(height, hash of the newest header)."""
    row = connection.execute(
        "SELECT number, hash FROM block ORDER BY number DESC LIMIT 1"
    ).fetchone()
    return (0, b"") if row is None else (row[0] + 1, row[1])


def _check_newest_block(connection: sqlite3.Connection, file: Path) -> None:
    row = connection.execute(
        "SELECT number, hash, bytes FROM block ORDER BY number DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return
    number, digest, stored = row
    try:
        whole = blocks.header_hash(common_pb2.Block.FromString(stored).header) == digest
    except DecodeError:
        whole = False
    if not whole:
        raise LedgerUnusable(f"Block {number} in the ledger file {file} is damaged. {REBUILD}")
