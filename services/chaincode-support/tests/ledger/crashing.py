"""A peer's ordering and ledger that submit as fast as they can, until they are killed.

Run as a program: FOLDER. Prints each transaction's id once its SUCCESS would have been sent, and
each block's number once it has been committed.
"""

import asyncio
import sys
from pathlib import Path

from testchannel import CHANNEL, Network, validator_of, writes

from chaincode_support.ledger import Ledger
from chaincode_support.ledger.committer import Committer
from chaincode_support.ordering import BatchSize, EmbeddedOrdering, OrderingSettings
from selvedge_common import logs
from selvedge_common.msp import load_signing_identity
from selvedge_common.protoutil.blocks import parse_block
from selvedge_common.protoutil.config_block import open_config

SETTINGS = OrderingSettings(
    batch=BatchSize(max_messages=3, absolute_bytes=1 << 20, preferred_bytes=1 << 20),
    timeout=0.001,
    max_pending_messages=100,
    max_pending_bytes=1 << 24,
)


def say(*words: object) -> None:
    print(*words, flush=True)


async def main(folder: Path) -> None:
    logs.configure("error", "json")
    network = Network()
    # The first run's organisation is the channel's: later runs act as its one member.
    member = folder / "msp"
    if not member.exists():
        network.organisation.issue("peer", "peer0", folder=member)
    network.client = network.peer = load_signing_identity(member, "Org1MSP")
    ordering = EmbeddedOrdering.open(folder, CHANNEL, network.orderer, SETTINGS, network.genesis)
    ledger = Ledger.open(folder / "ledger", CHANNEL)
    validator = validator_of(open_config(parse_block(ordering.block(0))))
    committing = asyncio.create_task(Committer(ordering, ledger, validator, blocks_ahead=100).run())

    async def submit(worker: int) -> None:
        number = 0
        while True:
            number += 1
            txid, envelope = network.transaction(writes(**{f"w{worker}": b"%d" % number}))
            await ordering.order(envelope)
            say("ordered", txid)

    async def watch() -> None:
        while True:
            await ledger.wait_for(ledger.height + 1)
            say("committed", ledger.height - 1)

    await asyncio.gather(committing, watch(), *(submit(worker) for worker in range(4)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
