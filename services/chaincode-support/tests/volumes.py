"""A channel's files as a service leaves them, with all kinds of transactions; and harm to them."""

import asyncio
import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from testchannel import CHAINCODE, CHANNEL, Network, Service, results_of, writes

from chaincode_support.ledger import Ledger
from chaincode_support.ledger.fingerprint import fingerprint
from chaincode_support.ledger.replay import TABLES
from chaincode_support.ledger.simulator import Simulator
from chaincode_support.ordering import BatchSize, OrderingSettings
from chaincode_support.volume import ChannelFiles
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2

SETTINGS = OrderingSettings(BatchSize(4, 1 << 20), 0.001, 100, 1 << 24)
# Blocks of `fill`, block 0 among them.
BLOCKS = 6
PAGE = 4096


def quiet(what: str, done: int, total: int) -> None:
    """The progress that nobody looks at."""
    assert what
    assert done <= total


async def fill(service: Service) -> None:
    """Order and commit BLOCKS - 1 blocks: valid transactions, and one with each kind of fault."""
    network = service.network
    first = network.transaction(writes(a=b"1", b=b"2", c=b"3"))[1]
    await order(service, first, network.transaction(writes(d=bytes(6000)))[1])
    stale = [simulate(service, _count) for _ in range(2)]
    await order(service, stale[0], stale[1], first, b"rubbish")
    by_a_stranger = network.propose(b"x", client=network.stranger)
    refused = network.endorse(by_a_stranger, writes(a=b"stolen")).SerializeToString()
    scan = simulate(service, _scan)
    await order(service, refused, network.transaction(writes(bb=b"new"))[1], scan)
    await order(service, network.transaction(writes(c=b"", d=b"small"))[1])
    await order(service, network.transaction(_metadata("a", b"policy"))[1])
    assert service.ledger.height == BLOCKS


async def order(service: Service, *envelopes: bytes) -> None:
    """Order the envelopes as one block, and wait until it is committed."""
    numbers = await asyncio.gather(*map(service.ordering.order, envelopes))
    assert len(set(numbers)) == 1
    async with asyncio.timeout(10):
        await service.ledger.wait_for(numbers[0] + 1)


def simulate(service: Service, run: Callable[[Simulator], object]) -> bytes:
    """A transaction that does what `run` does, on the state as it is now."""
    with closing(service.ledger.simulator("")) as simulator:
        run(simulator)
        return service.network.transaction(simulator.results())[1]


def _count(simulator: Simulator) -> None:
    simulator.get_state(CHAINCODE, "a")
    simulator.put_state(CHAINCODE, "a", b"counted")


def _scan(simulator: Simulator) -> None:
    assert list(simulator.range(CHAINCODE, "a", "c"))
    simulator.put_state(CHAINCODE, "result", b"x")


def _metadata(key: str, value: bytes) -> bytes:
    rwset = kv_rwset_pb2.KVRWSet()
    rwset.metadata_writes.add(key=key).entries.add(name="note", value=value)
    return results_of({CHAINCODE: rwset})


def make_volume(network: Network, folder: Path) -> Path:
    """A volume with one channel, whose service was stopped in order."""

    async def make() -> None:
        async with Service(network, folder, SETTINGS) as service:
            await fill(service)

    asyncio.run(make())
    return folder


def copy_of(volume: Path, target: Path) -> ChannelFiles:
    """The channel's files in a copy of a volume."""
    shutil.copytree(volume, target)
    return ChannelFiles.on(target, CHANNEL)


def contents(file: Path) -> dict[str, list[tuple[object, ...]]]:
    """Everything that can be read from a ledger's or a log's file, table by table."""
    found: dict[str, list[tuple[object, ...]]] = {}
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        for name in ("channel", "block", *TABLES):
            # A log has blocks only, a file that is new nothing.
            if connection.execute(f"PRAGMA table_info({name})").fetchall():
                found[name] = connection.execute(f"SELECT * FROM {name}").fetchall()
    return found


def fingerprints(ledger: Path) -> dict[str, str]:
    """Of what a ledger's blocks led to, table by table."""
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True)) as connection:
        return {table: fingerprint(connection, table) for table in TABLES}


def leave_room(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let every disk have so many bytes left."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))


@contextmanager
def changing(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection for changes that no service would make."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        yield connection


@contextmanager
def failing_disk(ledger: Ledger) -> Iterator[None]:
    """Meanwhile the disk does not give what is looked up in the ledger's blocks."""

    class Connection:
        def execute(self, *_: object) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

        def blobopen(self, *_: object, **__: object) -> None:
            self.execute()

    connections: Any = [Connection()]
    ledger._readers._idle, kept = connections, ledger._readers._idle
    try:
        yield
    finally:
        ledger._readers._idle = kept


def damage_page(file: Path, number: int, garbage: bytes) -> None:
    """Overwrite a page, the first being 0."""
    with file.open("r+b") as content:
        content.seek(number * PAGE)
        content.write(garbage)


def pages(file: Path) -> range:
    """The numbers of a file's pages."""
    return range(file.stat().st_size // PAGE)


def damage_block(file: Path, number: int) -> None:
    """Flip a bit in the middle of a block's bytes: SQLite does not notice."""
    with changing(file) as connection:
        (block,) = connection.execute(
            "SELECT bytes FROM block WHERE number = ?", (number,)
        ).fetchone()
        changed = bytearray(block)
        changed[len(changed) // 2] ^= 1
        connection.execute("UPDATE block SET bytes = ? WHERE number = ?", (bytes(changed), number))


def without(numbers: Sequence[int], left_out: int) -> list[int]:
    """The numbers but for one."""
    return list(itertools.filterfalse(lambda number: number == left_out, numbers))
