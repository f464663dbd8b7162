"""Peers' orderings and ledgers that submit as fast as they can, until they are killed.

Run as a program. For each line of standard input, a folder, it forks a process that orders and
commits there, and waits for its end; so a process is there in an instant. That process prints
`started` with its id, each transaction's id once its SUCCESS would have been sent, and each block's
number once it has been committed; when it has ended `ended` is printed.
"""

import asyncio
import itertools
import os
import sys
import traceback
from pathlib import Path

from testchannel import CHANNEL, Network, validator_of, writes

from chaincode_support.ledger import Ledger, committer, store
from chaincode_support.ordering import (
    BatchSize,
    EmbeddedOrdering,
    OrderingFailed,
    OrderingSettings,
    SqliteLog,
)
from chaincode_support.volume import LEDGER, ORDERING
from selvedge_common import logs
from selvedge_common.protoutil.blocks import parse_block
from selvedge_common.protoutil.config_block import open_config

SETTINGS = OrderingSettings(
    batch=BatchSize(max_messages=3, preferred_bytes=1 << 20),
    timeout=0.001,
    max_pending_messages=100,
    max_pending_bytes=1 << 24,
)
WORKERS = 4
# So little that some kills meet a checkpoint.
store.CHECKPOINT_PAGES = 16
MAX_WAL_BYTES = 256 << 10
committer.pauses = lambda: itertools.repeat(0.01)


def say(*words: object) -> None:
    # At once, so that a kill leaves whole lines only.
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


async def main(folder: Path, network: Network) -> None:
    log = SqliteLog.open(folder / ORDERING, CHANNEL, max_wal_bytes=MAX_WAL_BYTES)
    ordering = EmbeddedOrdering.open(log, CHANNEL, network.orderer, SETTINGS, network.genesis)
    ledger = Ledger.open(folder / LEDGER, CHANNEL, max_wal_bytes=MAX_WAL_BYTES)
    validator = validator_of(open_config(parse_block(ordering.block(0))))
    committing = asyncio.create_task(
        committer.Committer(
            ordering, ledger, validator, blocks_ahead=100, bytes_ahead=1 << 30
        ).run()
    )

    nursery = os.getppid()

    async def submit(worker: int) -> None:
        for number in itertools.count():
            if os.getppid() != nursery:
                os._exit(1)  # nobody is left who would wait for this process
            txid, envelope = network.transaction(writes(**{f"w{worker}": b"%d" % number}))
            try:
                await ordering.order(envelope)
            except OrderingFailed:
                say("failed", txid)
            else:
                say("ordered", txid)

    async def watch() -> None:
        height = ledger.height
        say("height", height)
        while True:
            await ledger.wait_for(height + 1)
            height = ledger.height
            say("committed", height - 1)

    await asyncio.gather(committing, watch(), *(submit(worker) for worker in range(WORKERS)))


def serve() -> None:
    logs.configure("panic", "json")
    network = Network()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            say("started", os.getpid())
            try:
                asyncio.run(main(Path(line.strip()), network))
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        os.waitpid(child, 0)
        say("ended")


if __name__ == "__main__":
    serve()
