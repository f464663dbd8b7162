"""Whether a channel's files are sound, and agree."""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from chaincode_support.ledger.fingerprint import differences, fingerprint
from chaincode_support.ledger.replay import TABLES, proved_ids, replay
from chaincode_support.maintenance.chain_check import (
    ChainCheck,
    as_ordered,
    check_ordered,
    parse,
)
from chaincode_support.maintenance.errors import Damaged, NothingThere
from chaincode_support.maintenance.judging import Judging
from chaincode_support.maintenance.progress import Progress
from chaincode_support.maintenance.report import Finding, Report
from chaincode_support.maintenance.scratch import (
    check_room,
    scratch_folder,
    scratch_ledger,
    undone,
)
from chaincode_support.maintenance.stored_blocks import (
    LedgerBlocks,
    OrderedBlocks,
    reading,
)
from chaincode_support.volume import ChannelFiles
from selvedge_common.protoutil import blocks, metadata
from selvedge_common.protoutil.errors import MalformedBlock, ValidationCode
from selvedge_common.quoting import printable
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2

# Of each file, and of each table, so many findings are told; one fault often shows in many places.
_MOST_FINDINGS = 10
_S = TypeVar("_S", LedgerBlocks, OrderedBlocks)
HOLDS = {"state": "state", "history": "history", "tx": "index of transactions"}
"""What each of replay.TABLES holds, for people."""


def verify(
    files: ChannelFiles, progress: Progress, scratch: Path | None = None, *, judge: bool = True
) -> Report:
    """Verify a channel, also while a service works on it; nothing in its files is changed.

    Of both files the pages, as SQLite checks them, and of each block its form, data, signatures and
    link to the one before. Of the ledger that its blocks are those of the ordering log, and that
    state, history and index are what its blocks lead to, applied once more to an empty ledger by
    the verdicts in them. And that these verdicts are those that the service would give.

    Args:
        files: where the channel lies.
        progress: is told of each block.
        scratch: where that empty ledger is written, on a disk with room for all state; beside the
            ledger if not given.
        judge: whether to judge the transactions again, up to the first verdict that differs. A
            release may judge otherwise than the one that committed a block.

    Raises:
        MaintenanceError: there is no such channel, a file cannot be read now, or there is no room.
        LedgerUnusable: a file is a link to nothing.
    """
    files.check_links()
    if not files.ledger.exists() and not files.ordering.exists():
        raise NothingThere(
            f"There is no channel {files.channel}: {files.ledger} and {files.ordering} are missing."
        )
    return _Verification(files, progress, scratch or files.ledger.parent, judge=judge).run()


class _Verification:
    def __init__(
        self, files: ChannelFiles, progress: Progress, scratch: Path, *, judge: bool
    ) -> None:
        self._files = files
        self._progress = progress
        self._scratch = scratch
        self._judge = judge
        self._report = Report(files.channel)
        self._told: Counter[Path] = Counter()
        # Blocks of the ordering log up to here were checked, and found sound but for some.
        self._checked = 0
        self._unsound: set[int] = set()

    def run(self) -> Report:
        self._check_room()
        with ExitStack() as stack:
            log = self._open(OrderedBlocks, self._files.ordering, stack)
            ledger = self._open(LedgerBlocks, self._files.ledger, stack)
            if log is not None:
                self._check_log(log)
            if ledger is not None:
                self._check_ledger(ledger, log)
        return self._report

    def _check_room(self) -> None:
        """Before anything that takes long; of a ledger that cannot be opened no state is made."""
        with suppress(Damaged), closing(LedgerBlocks.of(self._files)) as ledger:
            check_room(self._scratch, _size_of_state(ledger))

    def _open(self, kind: type[_S], file: Path, stack: ExitStack) -> _S | None:
        with self._noting(file):
            stored = stack.enter_context(closing(kind.of(self._files)))
            what = f"{self._files.channel}: SQLite's check of the {kind.what}"
            self._progress(what, 0, 1)
            fault = stored.check_pages()
            self._progress(what, 1, 1)
            if fault is not None:
                self._note(file, fault)
            return stored
        return None

    def _check_log(self, log: OrderedBlocks) -> None:
        chain = ChainCheck()
        with self._noting(log.file):
            self._report.ordered = log.height()
        for number in self._numbers(log.file, 0, self._report.ordered):
            self._unsound.add(number)
            with self._noting(log.file):
                chain.accept(check_ordered(chain, number, log.block(number)))
                self._unsound.discard(number)
            if number in self._unsound:
                chain.skip()
            self._checked = number + 1
            self._count(log.what, number, self._report.ordered)

    def _check_ledger(self, ledger: LedgerBlocks, log: OrderedBlocks | None) -> None:
        with (
            self._noting(ledger.file),
            scratch_folder(self._scratch) as folder,
            scratch_ledger(folder / self._files.ledger.name, self._files.channel) as replayed,
            ExitStack() as stack,
        ):
            walk = _Walk(ledger, log, replayed)
            stack.callback(walk.close)
            height = ledger.height()
            for number in self._numbers(ledger.file, 0, height):
                self._check_ledger_block(walk, number, height)
            # What was committed meanwhile, and what all of it led to.
            with ledger.at_one_moment():
                height = ledger.height()
                for number in self._numbers(ledger.file, walk.next, height):
                    self._check_ledger_block(walk, number, height)
                self._compare(walk)
                self._report.blocks = height
                self._report.last_block_hash = ledger.hash(height - 1).hex() if height else ""
        self._compare_heights(log)

    def _check_ledger_block(self, walk: _Walk, number: int, height: int) -> None:
        walk.next = number + 1
        sound = False
        with self._noting(walk.ledger.file):
            block = self._ledger_block(walk, number)
            if walk.ledger.hash(number) != blocks.header_hash(block.header):
                raise Damaged(f"the index of hashes has another hash for block {number}")
            if walk.sound:
                self._replay(walk, block)
            sound = True
        if not sound:
            walk.chain.skip()
            walk.sound = False
        self._count(walk.ledger.what, number, height)

    def _replay(self, walk: _Walk, block: common_pb2.Block) -> None:
        number = block.header.number
        if number == 0 and self._judge:
            walk.judging = Judging(walk.replayed, self._files.channel, block)
        judged = None
        if walk.judging is not None:
            with undone(walk.replayed):
                judged = walk.judging.judge(block)
        replay(walk.replayed, block)
        if judged is None:
            return
        difference = _first_difference(block, judged)
        if difference is None:
            self._report.judged += 1
        else:
            # Others may follow from it.
            walk.close()
            self._note(walk.ledger.file, difference, verdict=True)

    def _ledger_block(self, walk: _Walk, number: int) -> common_pb2.Block:
        marshalled = walk.ledger.block(number)
        ordered = self._ordered(walk.log, number)
        if ordered is not None and number < self._checked:
            block = parse(number, marshalled)
            if as_ordered(block) == ordered:
                walk.chain.accept(block)
                return block
        block = walk.chain.check(number, marshalled)
        walk.chain.accept(block)
        if ordered is not None and as_ordered(block) != ordered:
            self._note(walk.ledger.file, f"block {number} is not that of the ordering log")
        return block

    def _ordered(self, log: OrderedBlocks | None, number: int) -> bytes | None:
        if log is None or number in self._unsound:
            return None
        with suppress(Damaged):
            return log.block(number)
        return None

    def _compare(self, walk: _Walk) -> None:
        for done, table in enumerate(TABLES, 1):
            with self._noting(walk.ledger.file), reading(walk.ledger.file):
                found = fingerprint(walk.ledger.connection, table)
                if table == "state":
                    self._report.state_hash = found
                if walk.sound and found != fingerprint(walk.replayed, table):
                    self._note_differences(walk, table)
            self._progress(f"{self._files.channel}: state, history and index", done, len(TABLES))

    def _note_differences(self, walk: _Walk, table: str) -> None:
        keys = differences(walk.ledger.connection, walk.replayed, table)
        for key in itertools.islice(keys, _MOST_FINDINGS):
            named = ", ".join(printable(str(part)) for part in key)
            self._note(
                walk.ledger.file, f"its {HOLDS[table]} at {named} is not what its blocks say"
            )

    def _compare_heights(self, log: OrderedBlocks | None) -> None:
        if log is None:
            return
        with self._noting(log.file):
            self._report.ordered = log.height()
            if self._report.ordered < self._report.blocks:
                raise Damaged(
                    f"it ends before block {self._report.ordered}, and the ledger has "
                    f"{self._report.blocks} blocks"
                )

    def _numbers(self, file: Path, start: int, stop: int) -> Iterator[int]:
        """Numbers of blocks while there is room for findings: one that is damaged may be large."""
        return itertools.takewhile(lambda _: self._told[file] <= _MOST_FINDINGS, range(start, stop))

    def _count(self, what: str, number: int, total: int) -> None:
        self._progress(f"{self._files.channel}: blocks of the {what}", number + 1, total)

    @contextmanager
    def _noting(self, file: Path) -> Iterator[None]:
        try:
            yield
        except (Damaged, MalformedBlock) as error:
            self._note(file, str(error))

    def _note(self, file: Path, what: str, *, verdict: bool = False) -> None:
        self._told[file] += 1
        if self._told[file] <= _MOST_FINDINGS:
            self._report.findings.append(Finding(str(file), what.rstrip("."), verdict))
        elif self._told[file] == _MOST_FINDINGS + 1:
            self._report.findings.append(Finding(str(file), "there is more, which is not told"))


def _first_difference(block: common_pb2.Block, judged: Sequence[ValidationCode]) -> str | None:
    """The first transaction of a sound block that has another verdict than the one given now."""
    name = transaction_pb2.TxValidationCode.Name
    stored = metadata.validation_codes(block)
    if stored == judged:
        return None
    position, code, now = next(
        (position, *codes)
        for position, codes in enumerate(zip(stored, judged, strict=True))
        if codes[0] != codes[1]
    )
    txid = proved_ids(block)[position]
    whose = f" ({printable(txid)})" if txid else ""
    return (
        f"the verdict on transaction {position}{whose} of block {block.header.number} is "
        f"{name(code)}, and judged again it is {name(now)}"
    )


def _size_of_state(ledger: LedgerBlocks) -> int:
    with suppress(Damaged):
        return ledger.bytes_beside_blocks()
    return ledger.file.stat().st_size


@dataclass
class _Walk:
    """A ledger's blocks, one after the other, and what they lead to.

    `sound` says whether all of them so far could be applied, so that there is something to compare;
    `judging` is there while each had the verdicts that it gives.
    """

    ledger: LedgerBlocks
    log: OrderedBlocks | None
    replayed: sqlite3.Connection
    chain: ChainCheck = field(default_factory=ChainCheck)
    judging: Judging | None = None
    next: int = 0
    sound: bool = True

    def close(self) -> None:
        """Judge no more; harmless when repeated."""
        judging, self.judging = self.judging, None
        if judging is not None:
            judging.close()
