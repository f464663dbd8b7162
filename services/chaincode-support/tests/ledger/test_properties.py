"""Whatever transactions do, what a ledger commits is what they would do one after the other.

The model runs programs and nothing else: a valid transaction's program once more, at its turn, on a
dict. If that comes to the ledger's state, the valid ones are serialisable in the order of the
blocks. Which ones have to be rejected it knows from what they read and what was written since.
"""

import asyncio
import hashlib
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from testchannel import CHAINCODE, CHANNEL, Network, add_block

from chaincode_support.ledger import CheckedTransaction, Ledger
from chaincode_support.ledger.fingerprint import differences, fingerprint
from chaincode_support.ledger.replay import TABLES, replay
from chaincode_support.ledger.simulator import Simulator
from chaincode_support.ledger.store import make_scratch
from selvedge_common.protoutil import blocks, metadata
from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer import transaction_pb2

# One namespace of few keys, where transactions meet, and one of ranges long enough for hashes.
SHORT, LONG = CHAINCODE, "other"
SHORT_KEYS = ["a", "b\x00", "ü"]
LONG_KEYS = [f"k{number:02}" for number in range(60)]

Key = tuple[str, str]
Version = tuple[int, int]
Row = tuple[str, bytes]


@dataclass(frozen=True)
class Get:
    namespace: str
    key: str


@dataclass(frozen=True)
class GetMetadata:
    namespace: str
    key: str


@dataclass(frozen=True)
class Range:
    """At most `rows` of it are read; None reads to its end."""

    namespace: str
    start: str
    end: str
    rows: int | None


@dataclass(frozen=True)
class Put:
    namespace: str
    key: str


@dataclass(frozen=True)
class Delete:
    namespace: str
    key: str


@dataclass(frozen=True)
class PutMetadata:
    namespace: str
    key: str
    names: int


Step = Get | GetMetadata | Range | Put | Delete | PutMetadata


@dataclass(frozen=True)
class Transaction:
    """A program; its snapshot is so many blocks old when its block is cut.

    `late`: it runs only then, on that snapshot.
    """

    program: list[Step]
    age: int
    late: bool


@dataclass(frozen=True)
class Repeat:
    """An envelope that was ordered before, again; counted from the first."""

    which: int


class State(Protocol):
    """What a program runs on: a simulator, or the model."""

    def get_state(self, namespace: str, key: str) -> bytes | None: ...
    def get_metadata(self, namespace: str, key: str) -> dict[str, bytes]: ...
    def rows(self, range_: Range) -> list[Row]: ...
    def put_state(self, namespace: str, key: str, value: bytes) -> None: ...
    def delete_state(self, namespace: str, key: str) -> None: ...
    def put_metadata(self, namespace: str, key: str, entries: Mapping[str, bytes]) -> None: ...


def run(program: list[Step], state: State) -> None:
    """Each value that is written depends on everything read before."""
    seen = hashlib.sha256()
    for step in program:
        match step:
            case Get(namespace, key):
                seen.update(repr(state.get_state(namespace, key)).encode())
            case GetMetadata(namespace, key):
                seen.update(repr(sorted(state.get_metadata(namespace, key).items())).encode())
            case Range():
                seen.update(repr(state.rows(step)).encode())
            case Put(namespace, key):
                state.put_state(namespace, key, seen.digest()[:4])
            case Delete(namespace, key):
                state.delete_state(namespace, key)
            case PutMetadata(namespace, key, names):
                entries = {f"n{name}": seen.digest()[:2] for name in range(names)}
                state.put_metadata(namespace, key, entries)


class Simulated:
    """A simulator as programs see it."""

    def __init__(self, simulator: Simulator) -> None:
        self.get_state = simulator.get_state
        self.get_metadata = simulator.get_metadata
        self.put_state = simulator.put_state
        self.delete_state = simulator.delete_state
        self.put_metadata = simulator.put_metadata
        self._simulator = simulator

    def rows(self, range_: Range) -> list[Row]:
        iterator = self._simulator.range(range_.namespace, range_.start, range_.end)
        return list(iterator if range_.rows is None else islice(iterator, range_.rows))


@dataclass
class Entry:
    value: bytes
    metadata: dict[str, bytes]
    version: Version


@dataclass
class Reads:
    """What a program read of the model: versions, and rows of ranges with theirs."""

    keys: dict[Key, Version | None] = field(default_factory=dict)
    ranges: list[tuple[Range, list[tuple[str, Version]], bool]] = field(default_factory=list)


class Model:
    """The state, as a dict."""

    def __init__(self) -> None:
        self.entries: dict[Key, Entry] = {}

    def reads(self, program: list[Step]) -> Reads:
        """What the program reads now; it writes nothing."""
        running = _Running(self)
        run(program, running)
        return running.reads

    def apply(self, program: list[Step], version: Version) -> set[Key]:
        """Run the program now; gives the keys that it changed."""
        running = _Running(self)
        run(program, running)
        changed = set(running.values)
        for key, value in running.values.items():
            before = self.entries.pop(key, None)
            if value is not None:
                self.entries[key] = Entry(value, before.metadata if before else {}, version)
        for key, entries in running.metadata.items():
            if key in self.entries:
                self.entries[key] = Entry(self.entries[key].value, entries, version)
                changed.add(key)
        return changed

    def version(self, key: Key) -> Version | None:
        entry = self.entries.get(key)
        return None if entry is None else entry.version

    def rows_of(self, range_: Range) -> list[str]:
        return sorted(
            key
            for namespace, key in self.entries
            if namespace == range_.namespace
            and key >= range_.start
            and (not range_.end or key < range_.end)
        )


class _Running:
    """A program on the model: like a simulation, it does not read its own writes."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.reads = Reads()
        self.values: dict[Key, bytes | None] = {}
        self.metadata: dict[Key, dict[str, bytes]] = {}

    def get_state(self, namespace: str, key: str) -> bytes | None:
        entry = self._read(namespace, key)
        return entry.value if entry else None

    def get_metadata(self, namespace: str, key: str) -> dict[str, bytes]:
        entry = self._read(namespace, key)
        return entry.metadata if entry else {}

    def rows(self, range_: Range) -> list[Row]:
        keys = self._model.rows_of(range_)
        got = keys if range_.rows is None else keys[: range_.rows]
        entries = [(key, self._model.entries[range_.namespace, key]) for key in got]
        exhausted = range_.rows is None or len(got) < range_.rows
        versions = [(key, entry.version) for key, entry in entries]
        self.reads.ranges.append((range_, versions, exhausted))
        return [(key, entry.value) for key, entry in entries]

    def put_state(self, namespace: str, key: str, value: bytes) -> None:
        self.values[namespace, key] = value

    def delete_state(self, namespace: str, key: str) -> None:
        self.values[namespace, key] = None

    def put_metadata(self, namespace: str, key: str, entries: Mapping[str, bytes]) -> None:
        self.metadata[namespace, key] = dict(entries)

    def _read(self, namespace: str, key: str) -> Entry | None:
        entry = self._model.entries.get((namespace, key))
        self.reads.keys[namespace, key] = entry.version if entry else None
        return entry


def verdict(model: Model, reads: Reads, changed: set[Key]) -> str:
    """What becomes of a transaction that read this, after the block has `changed` these keys."""
    for namespace in sorted({LONG, SHORT}):
        for key, version in reads.keys.items():
            if key[0] == namespace and (key in changed or model.version(key) != version):
                return "MVCC_READ_CONFLICT"
        for range_, rows, exhausted in reads.ranges:
            if range_.namespace == namespace and _differs(model, range_, rows, exhausted):
                return "PHANTOM_READ_CONFLICT"
    return "VALID"


def comes_too_late(program: list[Step], relabelled: set[Key]) -> bool:
    """Whether the program writes a key whose metadata an earlier one of the block was to change:
    who may write it is known only after the block. Notes what this one is to change."""
    for namespace in sorted({LONG, SHORT}):
        steps = [step for step in program if step.namespace == namespace]
        written = [step for step in steps if isinstance(step, Put | Delete | PutMetadata)]
        if any((namespace, step.key) in relabelled for step in written):
            return True
        relabelled |= {(namespace, step.key) for step in steps if isinstance(step, PutMetadata)}
    return False


def _differs(model: Model, range_: Range, rows: list[tuple[str, Version]], exhausted: bool) -> bool:
    """Of a range that was left early, what lies behind the last row is nobody's concern."""
    keys = model.rows_of(range_)
    if not exhausted:
        keys = [key for key in keys if key <= rows[-1][0]]
    return rows != [(key, model.version((range_.namespace, key))) for key in keys]


def _steps(
    namespace: str, keys: list[str], bounds: list[str], most_rows: int
) -> st.SearchStrategy[Step]:
    space, key, bound = st.just(namespace), st.sampled_from(keys), st.sampled_from(["", *bounds])
    rows = st.one_of(st.none(), st.integers(1, most_rows))
    return st.one_of(
        st.builds(Get, space, key),
        st.builds(Put, space, key),
        st.builds(Delete, space, key),
        st.builds(Range, space, bound, bound, rows),
        st.builds(GetMetadata, space, key),
        st.builds(PutMetadata, space, key, st.integers(0, 2)),
    )


STEPS = st.one_of(
    _steps(SHORT, SHORT_KEYS, SHORT_KEYS, 2),
    # Of 60 keys, reads of more than 50 rows are recorded as hashes.
    _steps(LONG, LONG_KEYS[::10], ["k02", "k55"], 55),
)
PROGRAMS = st.lists(STEPS, min_size=1, max_size=6)
TRANSACTIONS = st.builds(Transaction, PROGRAMS, st.integers(0, 3), st.booleans())
BLOCKS = st.lists(
    st.one_of(TRANSACTIONS, TRANSACTIONS, TRANSACTIONS, st.builds(Repeat, st.integers(0, 50))),
    min_size=1,
    max_size=4,
)


@pytest.mark.timeout(300)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chain=st.lists(BLOCKS, min_size=1, max_size=5))
def test_what_is_committed_is_serialisable(
    network: Network, chain: list[list[Transaction | Repeat]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(commit(network, Path(folder), chain))


async def commit(network: Network, folder: Path, chain: list[list[Transaction | Repeat]]) -> None:
    with closing(_open(folder / "first")) as ledger, closing(_open(folder / "second")) as second:
        history = _History(network, ledger, chain)
        await history.begin()
        for number in range(len(chain)):
            await history.add(number)
        for number in range(ledger.height):
            await _feed(network, second, ledger.block(number))
        assert second.last_hash == ledger.last_hash
        _assert_same(ledger.file, second.file)
        _assert_same(ledger.file, _replayed(ledger, folder / "third.sqlite"))


class _History:
    """Blocks on their way into the ledger, and into the model."""

    def __init__(
        self, network: Network, ledger: Ledger, chain: list[list[Transaction | Repeat]]
    ) -> None:
        self._network = network
        self._ledger = ledger
        self._chain = chain
        self._model = Model()
        # Envelopes, with their programs and the numbers of their blocks.
        self._ordered: list[tuple[bytes, list[Step], int]] = []
        self._begun: dict[tuple[int, int], tuple[Simulator, Reads, bytes | None]] = {}

    async def begin(self) -> None:
        """Commit a block that fills the long namespace."""
        fill: list[Step] = [Put(LONG, key) for key in LONG_KEYS]
        envelope = self._finish(self._ledger.simulator(""), fill)
        assert await add_block(self._network, self._ledger, envelope) == ["VALID"]
        self._ordered.append((envelope, fill, 1))
        self._model.apply(fill, (1, 0))
        self._simulate(0)

    async def add(self, number: int) -> None:
        """Cut and commit a block: its verdicts and the state must be those of the model."""
        envelopes: list[bytes] = []
        expected: list[str] = []
        changed: set[Key] = set()
        relabelled: set[Key] = set()
        height = self._ledger.height
        for position, transaction in enumerate(self._chain[number]):
            if isinstance(transaction, Repeat):
                envelope, program, before = self._ordered[transaction.which % len(self._ordered)]
                late = before == height and comes_too_late(program, relabelled)
                expected.append("ENDORSEMENT_POLICY_FAILURE" if late else "DUPLICATE_TXID")
            else:
                program = transaction.program
                simulator, reads, done = self._begun[number, position]
                envelope = done or self._finish(simulator, program)
                self._ordered.append((envelope, program, height))
                if comes_too_late(program, relabelled):
                    expected.append("ENDORSEMENT_POLICY_FAILURE")
                else:
                    expected.append(verdict(self._model, reads, changed))
                if expected[-1] == "VALID":
                    changed |= self._model.apply(program, (height, position))
            envelopes.append(envelope)
        assert await add_block(self._network, self._ledger, *envelopes) == expected
        assert _state(self._ledger.file) == self._model.entries
        self._simulate(number + 1)

    def _simulate(self, committed: int) -> None:
        """Begin the simulations whose snapshot is of this moment, for this and later blocks."""
        for number, block in enumerate(self._chain):
            for position, transaction in enumerate(block):
                if isinstance(transaction, Repeat):
                    continue
                if max(0, number - transaction.age) == committed:
                    simulator = self._ledger.simulator("")
                    reads = self._model.reads(transaction.program)
                    late = transaction.late
                    envelope = None if late else self._finish(simulator, transaction.program)
                    self._begun[number, position] = simulator, reads, envelope

    def _finish(self, simulator: Simulator, program: list[Step]) -> bytes:
        with closing(simulator):
            run(program, Simulated(simulator))
            return self._network.transaction(simulator.results())[1]


def _open(folder: Path) -> Ledger:
    return Ledger.open(folder, CHANNEL, synchronous="OFF")


async def _feed(network: Network, ledger: Ledger, committed: bytes) -> None:
    """Commit another ledger's block, as it was ordered: it must come out the same."""
    block = blocks.parse_block(committed)
    metadata.set_metadata(block, common_pb2.TRANSACTIONS_FILTER, b"")
    validator = network.validator()
    first = CheckedTransaction(transaction_pb2.VALID, type=common_pb2.CONFIG)
    checked = await validator.check(block) if block.header.number else [first]
    validator.close()
    await ledger.commit(block, checked)
    assert block.SerializeToString() == committed


def _replayed(ledger: Ledger, file: Path) -> Path:
    """A file with what follows from a ledger's blocks alone."""
    with closing(make_scratch(file, CHANNEL)) as connection:
        for number in range(ledger.height):
            replay(connection, blocks.parse_block(ledger.block(number)))
    return file


def _assert_same(first: Path, second: Path) -> None:
    with closing(sqlite3.connect(first)) as one, closing(sqlite3.connect(second)) as other:
        for table in TABLES:
            assert list(differences(one, other, table)) == []
            assert fingerprint(one, table) == fingerprint(other, table)


def _state(file: Path) -> dict[Key, Entry]:
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT namespace, key, value, metadata, block, tx FROM state")
        return {
            (namespace, key): Entry(value, _entries(stored), (block, tx))
            for namespace, key, value, stored, block, tx in rows
        }


def _entries(stored: bytes | None) -> dict[str, bytes]:
    entries = kv_rwset_pb2.KVMetadataWrite.FromString(stored or b"").entries
    return {entry.name: entry.value for entry in entries}
