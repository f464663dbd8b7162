"""A ledger with a network around it; blocks go in as the committer puts them in."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from testchannel import CHANNEL, Network, code_names

from chaincode_support.ledger import CheckedTransaction, Ledger
from chaincode_support.ledger.simulator import Simulator
from selvedge_common.protoutil import blocks
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2


class Chain:
    """A ledger, and all that it takes to add blocks to it."""

    def __init__(self, ledger: Ledger, network: Network) -> None:
        self.ledger = ledger
        self.network = network
        self.validator = network.validator(workers=2)

    async def begin(self) -> None:
        """Commit block 0."""
        genesis = CheckedTransaction(transaction_pb2.VALID, type=common_pb2.CONFIG)
        await self.ledger.commit(self.network.genesis(), [genesis])

    async def add(self, *envelopes: bytes) -> list[str]:
        """Validate and commit the next block; the names of its transactions' codes."""
        block = blocks.new_block(self.ledger.height, self.ledger.last_hash, envelopes)
        await self.ledger.commit(block, await self.validator.check(block))
        return code_names(block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER])

    def simulate(self, run: Callable[[Simulator], object]) -> bytes:
        """A transaction that does what `run` does with the simulator, endorsed and signed."""
        simulator = self.ledger.simulator("")
        try:
            run(simulator)
            _, envelope = self.network.transaction(simulator.results())
        finally:
            simulator.close()
        return envelope

    def close(self) -> None:
        self.validator.close()
        self.ledger.close()


@pytest.fixture(scope="session")
def network() -> Network:
    return Network()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path, CHANNEL, max_simulations=4)
    yield ledger
    ledger.close()


@pytest.fixture
async def chain(ledger: Ledger, network: Network) -> AsyncIterator[Chain]:
    chain = Chain(ledger, network)
    await chain.begin()
    yield chain
    chain.close()
