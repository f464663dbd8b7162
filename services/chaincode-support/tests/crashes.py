"""Rounds of a peer's ordering and ledger that are killed, and what has to be there afterwards."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from testchannel import CHAINCODE, CHANNEL
from volumes import contents, quiet

from chaincode_support.ledger import Ledger
from chaincode_support.maintenance.verification import verify
from chaincode_support.volume import ChannelFiles
from selvedge_common.protoutil import blocks, metadata, transactions
from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer import transaction_pb2

PROGRAM = Path(__file__).with_name("ledger") / "crashing.py"
# Lines that a process prints before it is killed, at most, and seconds from the last of them to the
# kill: it can meet anything between two acknowledgements.
MOST_LINES = 60
LONGEST_PAUSE = 0.004


class Nursery:
    """Starts the processes that are killed."""

    def __init__(self, **environment: str) -> None:
        """`environment`: variables for the processes."""
        self._program = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(PROGRAM.parents[1]),
                # Nobody there speaks gRPC, whose threads do not always survive a fork.
                "GRPC_ENABLE_FORK_SUPPORT": "0",
                **environment,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._program.kill()
        self._program.communicate()

    def start(self, folder: Path) -> "Doomed":
        """A process that orders and commits in a folder, a volume."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{folder}\n")
        self._program.stdin.flush()
        lines = map(str.split, self._program.stdout)
        what, pid = next(lines, ["ended", ""])
        assert what == "started", "the nursery is gone"
        return Doomed(int(pid), lines)


class Doomed:
    """A process until it is killed: a client's view of it."""

    def __init__(self, pid: int, lines: Iterator[list[str]]) -> None:
        self.pid = pid
        self._lines = lines
        self.height = 0
        """Blocks that it said are committed."""
        self.ordered: list[str] = []
        """Ids of transactions that it said are ordered."""
        self.failed: list[str] = []
        """Ids of transactions that it said are not."""

    def read(self, lines: int) -> None:
        """Wait for so many lines."""
        for words in itertools.islice(self._lines, lines):
            assert words != ["ended"], "it ended by itself"
            self._note(*words)

    def read_more(self, *, ordered: int = 0, failed: int = 0, blocks: int = 0) -> None:
        """Wait until so many more transactions are ordered or failed, or blocks committed."""
        ordered += len(self.ordered)
        failed += len(self.failed)
        blocks += self.height
        while len(self.ordered) < ordered or len(self.failed) < failed or self.height < blocks:
            self.read(1)

    def kill(self) -> None:
        """End it, and read what it said before."""
        os.kill(self.pid, signal.SIGKILL)
        for words in self._lines:
            if words == ["ended"]:
                return
            self._note(*words)
        raise AssertionError("the nursery is gone")

    def _note(self, what: str, which: str) -> None:
        match what:
            case "ordered":
                self.ordered.append(which)
            case "failed":
                self.failed.append(which)
            case "committed":
                self.height = int(which) + 1
            case "height":
                self.height = int(which)


class Rounds:
    """Rounds on one volume: a process works there until it is killed, and the next one goes on."""

    def __init__(
        self,
        nursery: Nursery,
        folder: Path,
        chosen: random.Random,
        after_kill: Callable[[], None] = lambda: None,
    ) -> None:
        """`after_kill` is called between a process's end and the check."""
        self._nursery = nursery
        self._folder = folder
        self._chosen = chosen
        self._after_kill = after_kill
        self.files = ChannelFiles.on(folder, CHANNEL)
        self.ordered: list[str] = []
        """Ids of all transactions that were acknowledged."""
        self.ordered_after_all: list[str] = []
        """Ids of those that were said not to be, and are there."""

    def run(self) -> None:
        """One round: what was acknowledged in any of them must be there afterwards."""
        doomed = self._nursery.start(self._folder)
        doomed.read(self._chosen.randrange(MOST_LINES))
        time.sleep(self._chosen.uniform(0, LONGEST_PAUSE))
        self.end(doomed)

    def end(self, doomed: Doomed) -> None:
        """Kill a process, and see that all is there."""
        doomed.kill()
        self._after_kill()
        self.ordered += doomed.ordered
        if not _is_made(self.files.ordering):
            assert not self.ordered
            return
        # Read only: recovering is the next process's business.
        chain = [
            blocks.parse_block(marshalled)
            for _, marshalled in contents(self.files.ordering)["block"]
            if isinstance(marshalled, bytes)
        ]
        in_order = Counter(_txids(chain))
        lost = set(self.ordered) - set(in_order)
        assert not lost, f"acknowledged and not ordered: {lost}"
        assert max(in_order.values(), default=1) == 1, "ordered twice"
        # What is written next takes the place of what could not be made durable: so it is only the
        # last such block that can be there after a crash.
        after_all = set(doomed.failed) & set(in_order)
        assert after_all <= set(_txids(chain[-1:])), "not ordered, and in the middle of the log"
        self.ordered_after_all += after_all
        if not _is_made(self.files.ledger):
            assert not doomed.height
            return
        report = verify(self.files, quiet)
        assert report.findings == []
        assert doomed.height <= report.blocks <= len(chain), "committed and gone"

    def finish(self) -> None:
        """Let a last process commit all that is ordered, and look at the outcome, not by verify."""
        doomed = self._nursery.start(self._folder)
        doomed.read_more(ordered=1, blocks=1)
        self.end(doomed)
        state: dict[str, bytes] = {}
        with closing(Ledger.open(self.files.ledger.parent, CHANNEL)) as ledger:
            chain = [blocks.parse_block(ledger.block(n)) for n in range(ledger.height)]
            for before, block in itertools.pairwise(chain):
                assert block.header.previous_hash == blocks.header_hash(before.header)
                assert block.header.data_hash == blocks.data_hash(block.data.data)
                assert set(metadata.validation_codes(block)) == {transaction_pb2.VALID}
                for envelope in block.data.data:
                    opened = transactions.open_transaction(envelope)
                    assert ledger.block_number_of(opened.txid) == (block.header.number, 0)
                    state |= _written_by(opened)
            with closing(ledger.simulator("")) as simulator:
                assert dict(simulator.range(CHAINCODE, "", "")) == state


def _is_made(file: Path) -> bool:
    """Whether its first transaction, which makes its tables, is complete."""
    journal = file.with_name(f"{file.name}-journal")
    return file.exists() and not journal.exists() and bool(contents(file))


def _txids(chain: list[common_pb2.Block]) -> list[str]:
    return [
        transactions.open_transaction(envelope).txid
        for block in chain
        if block.header.number
        for envelope in block.data.data
    ]


def _written_by(transaction: transactions.OpenedTransaction) -> dict[str, bytes]:
    action = transaction.open_action()
    assert action is not None
    results = action.chaincode_action.results
    (part,) = rwset_pb2.TxReadWriteSet.FromString(results).ns_rwset
    writes = kv_rwset_pb2.KVRWSet.FromString(part.rwset).writes
    return {write.key: write.value for write in writes}
