"""The ledger of chaincode-support alone, and Deliver over it.

Its parts are the service's own, with its defaults: a commit is on the disk before the next begins,
and every signature is verified. It prints the address of Deliver. Each line on standard input is
answered by a line, a Timed in JSON:

  grow KEYS                commits keys, unsigned and unchecked, until the state has so many
  make BLOCKS COUNT BYTES  makes blocks of so many transactions, simulated, endorsed and signed:
                           each reads a key of the state and puts so many bytes there
  commit                   what was made last, by the service's committer
  verify                   nothing but its signatures, on as many threads
  store                    nothing but its blocks, by SQLite alone
  read COUNT               GetState of as many keys, in simulations
  select COUNT             the same by SQLite alone
  range COUNT              as many ranges, read to their ends, each in a simulation
  scan COUNT               the same by SQLite alone
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop

from bench.client import CHANNEL, NAME
from bench.given_blocks import GivenBlocks
from bench.made_blocks import Block, Maker, Signature, key
from bench.process import standard_input
from chaincode_support import config, listeners
from chaincode_support.chain import make_validator
from chaincode_support.channel import Channel
from chaincode_support.deliver import BlockReader, Deliver, Readable, add_peer_deliver
from chaincode_support.genesis import open_channel, open_ordering
from chaincode_support.ledger.committer import Committer
from chaincode_support.ledger.store import connect, open_reader
from chaincode_support.material import Material
from selvedge_cli.connection import read_user
from selvedge_cli.options import MSP_ID
from selvedge_common import comm, logs
from selvedge_common.protoutil.blocks import parse_block
from selvedge_common.protoutil.metadata import validation_codes
from selvedge_common.protoutil.responses import Backlog
from selvedge_protos.peer import transaction_pb2

ROWS = 1000
"""Of a range."""
READS = 100
"""Of one simulation."""
_SELECT = "SELECT value FROM state WHERE namespace = ? AND key = ?"
_SCAN = "SELECT key, value FROM state WHERE namespace = ? AND key >= ? AND key < ? ORDER BY key"


@dataclass(frozen=True)
class Timed:
    """What a command took.

    Attributes:
        count: of what it did: keys, transactions, reads or ranges.
        seconds: on the clock.
        cpu: seconds of processor time, all threads together.
    """

    count: int
    seconds: float
    cpu: float


class _Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._seconds, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, count: int) -> Timed:
        """What it took to do as much."""
        return Timed(count, time.perf_counter() - self._seconds, time.process_time() - self._cpu)


class Commands:
    """What the lines can say, each by a method.

    Args:
        channel: its ledger is empty.
        maker: of blocks for it.
    """

    def __init__(self, channel: Channel, maker: Maker) -> None:
        self._ledger = channel.ledger
        self._maker = maker
        self._made: Sequence[Block] = ()
        self._random = random.Random(2)  # noqa: S311 - the same keys each time
        self._workers = os.cpu_count() or 1
        self._validator = make_validator(CHANNEL, channel.policies, channel.msps, self._workers)
        self._pool = ThreadPoolExecutor(self._workers)
        self._alone = _blocks_alone(self._ledger.file.with_name("alone.sqlite"))
        self._reader = open_reader(self._ledger.file)

    async def begin(self, genesis: bytes) -> None:
        """Commit block 0."""
        await self._follow([genesis])

    async def grow(self, keys: int) -> Timed:
        """Commit keys until there are so many."""
        before, watch = self._maker.keys, _Stopwatch()
        await self._maker.grow(keys)
        return watch.stop(self._maker.keys - before)

    async def make(self, count: int, transactions: int, size: int) -> Timed:
        """Make blocks for what follows; gives their transactions."""
        watch = _Stopwatch()
        self._made = [*self._maker.make(count, transactions, size)]
        return watch.stop(count * transactions)

    async def commit(self) -> Timed:
        """Commit them, all transactions valid."""
        first, blocks = self._ledger.height, [each.marshalled for each in self._made]
        watch = _Stopwatch()
        await self._follow(blocks)
        timed = watch.stop(self._transactions)
        for number in range(first, self._ledger.height):
            codes = set(validation_codes(parse_block(self._ledger.block(number))))
            assert codes == {transaction_pb2.VALID}, f"block {number} came out with {codes}"
        return timed

    async def verify(self) -> Timed:
        """Verify them as the validator does: a part for each thread, one block after the other."""
        loop, watch = asyncio.get_running_loop(), _Stopwatch()
        for block in self._made:
            size = -(-len(block.transactions) // self._workers)
            parts = [
                block.transactions[at : at + size] for at in range(0, len(block.transactions), size)
            ]
            await asyncio.gather(
                *(loop.run_in_executor(self._pool, _verify_all, part) for part in parts)
            )
        return watch.stop(self._transactions)

    async def store(self) -> Timed:
        """Store them as safely as the ledger does: each is on the disk before the next."""
        watch = _Stopwatch()
        for block in self._made:
            self._alone.execute("INSERT INTO block (bytes) VALUES (?)", (block.marshalled,))
        return watch.stop(self._transactions)

    async def read(self, count: int) -> Timed:
        """Read keys by chance."""
        keys = self._some_keys(count)
        watch = _Stopwatch()
        for at in range(0, count, READS):
            with closing(self._ledger.simulator("read", NAME)) as simulator:
                for name in keys[at : at + READS]:
                    assert simulator.get_state(NAME, name), name
        return watch.stop(count)

    async def select(self, count: int) -> Timed:
        """Read keys by chance, with as small a cache as a simulation has."""
        keys = self._some_keys(count)
        watch = _Stopwatch()
        for at in range(0, count, READS):
            with self._snapshot() as reader:
                for name in keys[at : at + READS]:
                    assert reader.execute(_SELECT, (NAME, name)).fetchone(), name
        return watch.stop(count)

    async def range(self, count: int) -> Timed:
        """Read ranges by chance."""
        ranges = self._some_ranges(count)
        watch = _Stopwatch()
        for start, end in ranges:
            with closing(self._ledger.simulator("range", NAME)) as simulator:
                assert sum(1 for _ in simulator.range(NAME, start, end)) == ROWS
        return watch.stop(count)

    async def scan(self, count: int) -> Timed:
        """Read ranges by chance, with as small a cache as a simulation has."""
        ranges = self._some_ranges(count)
        watch = _Stopwatch()
        for start, end in ranges:
            with self._snapshot() as reader:
                assert sum(1 for _ in reader.execute(_SCAN, (NAME, start, end))) == ROWS
        return watch.stop(count)

    def close(self) -> None:
        """End the threads, and close the files that are not the channel's."""
        self._validator.close()
        self._pool.shutdown()
        self._alone.close()
        self._reader.close()

    async def _follow(self, blocks: Sequence[bytes]) -> None:
        """Raises CommitterStopped."""
        given = GivenBlocks(self._ledger, blocks)
        committer = Committer(
            given, self._ledger, self._validator, blocks_ahead=given.height, bytes_ahead=1
        )
        committing = asyncio.create_task(committer.run())
        committed = asyncio.create_task(self._ledger.wait_for(given.height))
        await asyncio.wait((committing, committed), return_when=asyncio.FIRST_COMPLETED)
        if committing.done():
            await committing
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        self._reader.execute("BEGIN")
        yield self._reader
        self._reader.execute("COMMIT")

    def _some_keys(self, count: int) -> list[str]:
        return [key(self._random.randrange(self._maker.keys)) for _ in range(count)]

    def _some_ranges(self, count: int) -> list[tuple[str, str]]:
        starts = [self._random.randrange(self._maker.keys - ROWS + 1) for _ in range(count)]
        return [(key(start), key(start + ROWS)) for start in starts]

    @property
    def _transactions(self) -> int:
        return sum(len(block.transactions) for block in self._made)


def _verify_all(transactions: Sequence[Sequence[Signature]]) -> None:
    for signatures in transactions:
        for signature in signatures:
            signature.verify()


def _blocks_alone(file: Path) -> sqlite3.Connection:
    connection = connect(file)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE block (number INTEGER PRIMARY KEY, bytes BLOB) STRICT")
    return connection


@asynccontextmanager
async def delivering(
    settings: config.Config, material: Material, channel: Channel
) -> AsyncIterator[str]:
    """Deliver behind mTLS, as the peer API has it; gives its address."""
    limits = settings.peer.limits
    ledger = channel.ledger
    blocks = BlockReader(CHANNEL, ledger, ledger.blocks, ledger.held)
    service = Deliver(
        {CHANNEL: Readable(channel, blocks)},
        mutual_tls=True,
        max_streams=limits.concurrency.deliver_service,
        backlog=Backlog(limits.deliver_bytes, limits.concurrency.deliver_service),
    )
    secure = listeners.secure(settings, material)
    listener = listeners.listener(settings, secure, settings.transport.peer)
    server = comm.GRPCServer("localhost:0", listener)
    add_peer_deliver(server, service)
    await server.start()
    yield server.address
    await server.stop(0)
    await blocks.close()


async def serve(home: Path, folder: Path) -> None:
    """Serve until standard input ends, with the identities of a home."""
    settings = config.read()
    settings = replace(settings, peer=replace(settings.peer, file_system_path=folder))
    material = Material(home / "chaincode-support", MSP_ID)
    client = read_user(home / "crypto" / "users" / "user1").signer
    ordering = open_ordering(CHANNEL, settings, material)
    channel = open_channel(CHANNEL, settings, material, ordering)
    with closing(channel.ledger):
        commands = Commands(channel, Maker(channel, material.peer(), client))
        with closing(commands):
            await commands.begin(ordering.block(0))
            ordering.discard()
            async with delivering(settings, material, channel) as address:
                print(address, flush=True)
                async for line in standard_input():
                    name, *amounts = line.split()
                    timed: Timed = await getattr(commands, name)(*map(int, amounts))
                    print(json.dumps(asdict(timed)), flush=True)


def main() -> None:
    """Serve, on the event loop that the services use."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m bench.ledger_server .selvedge /tmp/ledger",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("home", type=Path, help="of services that have been started there")
    parser.add_argument("folder", type=Path, help="for the ledger, which it begins anew")
    arguments = parser.parse_args()
    logs.configure("error", "console")
    uvloop.run(serve(arguments.home, arguments.folder))


if __name__ == "__main__":
    main()
