"""A channel's ledger once more, from the blocks that its two files hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from chaincode_support.ledger.replay import proved_ids, replay
from chaincode_support.ledger.store import connect, insert_block
from chaincode_support.maintenance.chain_check import ChainCheck, as_ordered, check_ordered
from chaincode_support.maintenance.errors import BlockLost, Damaged, NothingThere, TwoChains
from chaincode_support.maintenance.judging import Judging
from chaincode_support.maintenance.progress import Progress
from chaincode_support.maintenance.scratch import (
    check_room,
    keep_aside,
    make_durable,
    put_in_place,
    scratch_folder,
    scratch_ledger,
    writing,
)
from chaincode_support.maintenance.stored_blocks import LedgerBlocks, OrderedBlocks
from chaincode_support.ordering import log as ordering_log
from chaincode_support.volume import ChannelFiles, claimed
from selvedge_common.protoutil import blocks, metadata
from selvedge_common.protoutil.errors import MalformedBlock, ValidationCode
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2

# Verdicts on transactions that had their endorsements: no later one with that id can be valid.
_MAKES_DUPLICATES = frozenset(
    {
        transaction_pb2.VALID,
        transaction_pb2.MVCC_READ_CONFLICT,
        transaction_pb2.PHANTOM_READ_CONFLICT,
    }
)
_S = TypeVar("_S", LedgerBlocks, OrderedBlocks)


@dataclass
class Rebuilt:
    """What was done.

    Attributes:
        channel: the channel.
        blocks: in the new ledger, and in the ordering log.
        judged: blocks whose transactions were judged again, for the ledger had no verdicts on
            them, or none that its index confirms.
        recovered: blocks that the ordering log had lost, and now has again from the ledger.
        given_up: blocks that were known, and are gone with one that neither file holds.
        kept: the old files of which not all could be saved, under the names that they have now.
    """

    channel: str
    blocks: int = 0
    judged: int = 0
    recovered: int = 0
    given_up: int = 0
    kept: list[str] = field(default_factory=list)


def rebuild(files: ChannelFiles, progress: Progress, *, force: bool) -> Rebuilt:
    """Make a channel's ledger again: its state, history and indexes, from its blocks.

    A block that one of the two files has lost is taken from the other one. What was committed stays
    as it was judged then; the other blocks are judged as the service would. The files take the
    places of the old ones when they are complete. No service may work on the channel.

    Args:
        files: where it lies.
        progress: is told of each block.
        force: end the chain at a block that neither file holds, instead of raising BlockLost; the
            old files are kept beside the new ones.

    Raises:
        BlockLost: neither file holds a block that there must have been, or may have been.
        TwoChains: the files hold different blocks of the same number, both sound.
        MaintenanceError, LedgerInUse, OSError: it cannot be done.
        MalformedBlock: the configuration or a verdict in a block makes no sense.
    """
    if not files.ledger.exists() and not files.ordering.exists():
        raise NothingThere(
            f"There is no channel {files.channel}: {files.ledger} and {files.ordering} are missing."
        )
    files.check_links()
    with ExitStack() as stack:
        stack.enter_context(claimed(files, "`selvedge ledger rebuild`"))
        check_room(files.ledger.parent, _size(files.ledger) + 2 * _size(files.ordering))
        new = stack.enter_context(scratch_folder(files.ledger.parent)) / files.ledger.name
        with ExitStack() as sources:
            rebuilding = _Rebuilding(files, progress, sources, force=force)
            with scratch_ledger(new, files.channel) as connection:
                rebuilt = rebuilding.run(connection)
        make_durable(new)
        new_log = None
        if rebuilding.log_is_damaged:
            new_log = stack.enter_context(scratch_folder(files.ordering.parent)) / "ordering"
            _write_log(new, new_log)
        for file in rebuilding.not_saved:
            if (aside := keep_aside(file)) is not None:
                rebuilt.kept.append(str(aside))
        if new_log is not None:
            put_in_place(new_log, files.ordering)
        put_in_place(new, files.ledger)
    return rebuilt


class _Rebuilding:
    def __init__(
        self, files: ChannelFiles, progress: Progress, sources: ExitStack, *, force: bool
    ) -> None:
        self._files = files
        self._progress = progress
        self._force = force
        self._sources = sources
        # What was last found wrong with a file.
        self._faults: dict[Path, str] = {}
        self._ledger = self._open(LedgerBlocks, files.ledger)
        self._log = self._open(OrderedBlocks, files.ordering)
        self._chain = ChainCheck()
        self._judging: Judging | None = None
        self._rebuilt = Rebuilt(files.channel)
        self.not_saved: list[Path] = []
        """Files that hold something, maybe, which the new ones have not got."""
        self.log_is_damaged = self._log is None or not _is_sound(self._log)

    def _open(self, kind: type[_S], file: Path) -> _S | None:
        with self._noting(file):
            return self._sources.enter_context(closing(kind.of(self._files)))
        return None

    @contextmanager
    def _noting(self, file: Path) -> Iterator[None]:
        try:
            yield
        except Damaged as damage:
            self._faults[file] = str(damage)

    def run(self, connection: sqlite3.Connection) -> Rebuilt:
        total = self._total()
        for number in range(total):
            block, held = self._choose(number)
            if block is None:
                self._give_up(number, total)
                break
            self._chain.accept(block)
            if self._judging is None:
                self._judging = Judging(connection, self._files.channel, block)
                self._sources.callback(self._judging.close)
            if held is not None and self._confirmed(held):
                replay(connection, held)
                insert_block(connection, held)
            else:
                metadata.set_validation_codes(block, self._judging.judge(block))
                insert_block(connection, block)
                self._rebuilt.judged += 1
            self._rebuilt.blocks += 1
            self._progress(f"{self._files.channel}: blocks", number + 1, total)
        return self._rebuilt

    def _total(self) -> int:
        """How many blocks there are to be, as far as anybody knows."""
        in_ledger, ordered = self._height(self._ledger), self._height(self._log)
        if ordered is None:
            self._go_on_without_log(in_ledger)
        return max(in_ledger or 0, ordered or 0)

    def _height(self, stored: LedgerBlocks | OrderedBlocks | None) -> int | None:
        if stored is not None:
            with self._noting(stored.file):
                return stored.height()
        return None

    def _go_on_without_log(self, in_ledger: int | None) -> None:
        if self._force:
            self.not_saved.append(self._files.ordering)
            if in_ledger is None:
                self.not_saved.append(self._files.ledger)
            return
        if in_ledger is None:
            raise BlockLost(
                f"Neither file of channel {self._files.channel} can be read: {self._both_faults()}."
                " Restore a backup; with --force, which keeps the old files aside, the channel is "
                "empty."
            )
        raise BlockLost(
            f"The ordering log {self._files.ordering} cannot be read: "
            f"{self._faults[self._files.ordering]}. The ledger has {in_ledger} blocks; what was "
            "ordered and not committed yet is lost with the log: restore a backup, or go on "
            "without it with --force, which keeps the old file aside."
        )

    def _both_faults(self) -> str:
        return "; ".join(
            f"{file}: {self._faults[file]}" for file in (self._files.ordering, self._files.ledger)
        )

    def _choose(self, number: int) -> tuple[common_pb2.Block | None, common_pb2.Block | None]:
        """The block as it was ordered, and the same with the ledger's verdicts; None for none."""
        held = ordered = None
        if self._ledger is not None:
            with self._noting(self._files.ledger):
                held = self._chain.check(number, self._ledger.block(number))
        if self._log is not None:
            with self._noting(self._files.ordering):
                ordered = check_ordered(self._chain, number, self._log.block(number))
        if held is None:
            return ordered, None
        if ordered is None:
            self.log_is_damaged = True
            self._rebuilt.recovered += 1
            return common_pb2.Block.FromString(as_ordered(held)), held
        if held.header != ordered.header:
            raise TwoChains(
                f"Block {number} of the ledger {self._files.ledger} is not that of the ordering "
                f"log {self._files.ordering}, and both are sound: they are of two chains. Restore "
                "the one that belongs to the other, or move the wrong one away."
            )
        return ordered, held

    def _give_up(self, number: int, total: int) -> None:
        if not self._force:
            raise BlockLost(
                f"Block {number} of channel {self._files.channel} is lost in both files: "
                f"{self._both_faults()}. Restore a backup, or give up this block and all that "
                "follow with --force, which keeps the old files aside."
            )
        self.not_saved = [self._files.ordering, self._files.ledger]
        self.log_is_damaged = True
        self._rebuilt.given_up = total - number

    def _confirmed(self, held: common_pb2.Block) -> bool:
        """Whether the verdicts in a ledger's block are those in its index: each is kept twice, and
        nothing else protects them."""
        assert self._ledger is not None
        number = held.header.number
        try:
            txids = proved_ids(held)
            if number == 0:
                return True
            codes = metadata.validation_codes(held)
            places = [self._ledger.place(txid) if txid else None for txid in txids]
        except (Damaged, MalformedBlock):
            return False
        return all(
            _fits(place, number, position, txids, codes) for position, place in enumerate(places)
        )


def _fits(
    place: tuple[int, int, int] | None,
    number: int,
    position: int,
    txids: Sequence[str],
    codes: Sequence[ValidationCode],
) -> bool:
    """Whether the verdict on the transaction at `position` of block `number` is one that can be
    where the index has its id at `place`, (block, position, code)."""
    txid, code = txids[position], codes[position]
    if not txid:
        return code != transaction_pb2.VALID
    if place is None or place[:2] > (number, position):
        return False
    if place[:2] == (number, position):
        return place[2] == code
    # Of several with one id the index has the first. Another one is valid only where that is in the
    # same block, and makes no duplicates.
    first = txids.index(txid)
    return code != transaction_pb2.VALID or (
        place == (number, first, codes[first]) and codes[first] not in _MAKES_DUPLICATES
    )


def _write_log(ledger: Path, target: Path) -> None:
    """An ordering log with the blocks of a ledger, whole and durable."""
    with writing(target), closing(connect(ledger)) as source, closing(connect(target)) as log:
        log.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            f"BEGIN;{ordering_log.SCHEMA}PRAGMA user_version = {ordering_log.SCHEMA_VERSION};"
        )
        log.executemany(
            "INSERT INTO block (number, bytes) VALUES (?, ?)",
            (
                (number, as_ordered(blocks.parse_block(marshalled)))
                for number, marshalled in source.execute(
                    "SELECT number, bytes FROM block ORDER BY number"
                )
            ),
        )
        log.execute("COMMIT")
    make_durable(target)


def _is_sound(stored: OrderedBlocks) -> bool:
    try:
        return stored.check_pages() is None
    except Damaged:
        return False


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
