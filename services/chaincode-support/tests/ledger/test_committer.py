"""The committer follows the ordering, resumes where the ledger is, and never skips."""

import asyncio
import threading
from typing import Any

import pytest
from testchannel import code_names, writes

from chaincode_support.ledger.committer import Committer, CommitterStopped
from selvedge_common.protoutil import blocks
from selvedge_protos.common import common_pb2

LIMITS = {"blocks_ahead": 10, "bytes_ahead": 1 << 20}


class Ordered:
    """These blocks of an ordering, and no more to come."""

    ordered_bytes = 0

    def __init__(self, *ordered: common_pb2.Block) -> None:
        self._blocks = [block.SerializeToString() for block in ordered]

    @property
    def height(self) -> int:
        return len(self._blocks)

    def block(self, number: int) -> bytes:
        return self._blocks[number]

    async def wait_for(self, height: int) -> None:
        if height > len(self._blocks):
            await asyncio.Event().wait()


def chain_of(network: Any, *batches: list[bytes]) -> list[common_pb2.Block]:
    chain = [network.genesis()]
    for batch in batches:
        previous = blocks.header_hash(chain[-1].header)
        chain.append(blocks.new_block(len(chain), previous, batch))
    return chain


async def test_it_commits_from_the_genesis_block_on(chain: Any) -> None:
    more = chain_of(chain.network, [chain.network.transaction(writes(a=b"1"))[1], b"rubbish"])
    # The fixture's ledger has a genesis block already; this chain goes on from that one.
    first = blocks.parse_block(chain.ledger.block(0))
    more[1].header.previous_hash = blocks.header_hash(first.header)
    ordering = Ordered(first, more[1])
    committer = Committer(ordering, chain.ledger, chain.validator, **LIMITS)
    running = asyncio.create_task(committer.run())
    async with asyncio.timeout(10):
        await chain.ledger.wait_for(2)
    committer.check_health()
    stored = blocks.parse_block(chain.ledger.block(1))
    assert code_names(stored.metadata.metadata[common_pb2.TRANSACTIONS_FILTER]) == [
        "VALID",
        "INVALID_OTHER_REASON",
    ]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    committer.check_health()


async def test_an_empty_ledger_begins_with_block_zero(ledger: Any, network: Any) -> None:
    validator = network.validator()
    ordering = Ordered(*chain_of(network, [network.transaction()[1]]))
    running = asyncio.create_task(Committer(ordering, ledger, validator, **LIMITS).run())
    async with asyncio.timeout(10):
        await ledger.wait_for(2)
    running.cancel()
    validator.close()
    stored = blocks.parse_block(ledger.block(0))
    assert stored.metadata.metadata[common_pb2.TRANSACTIONS_FILTER] == b"\x00"


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda block: block.data.data.append(b"more"), "does not fit its header"),
        (lambda block: setattr(block.header, "previous_hash", b"no"), "does not follow"),
        (lambda block: setattr(block.header, "number", 2), "gave block 2 for 1"),
    ],
)
async def test_a_block_that_cannot_be_committed_stops_it(
    chain: Any, break_it: Any, why: str
) -> None:
    block = blocks.new_block(1, chain.ledger.last_hash, [chain.network.transaction()[1]])
    break_it(block)
    first = blocks.parse_block(chain.ledger.block(0))
    committer = Committer(Ordered(first, block), chain.ledger, chain.validator, **LIMITS)
    async with asyncio.timeout(10):
        with pytest.raises(CommitterStopped, match=f"stopped at block 1: .*{why}"):
            await committer.run()
    with pytest.raises(CommitterStopped, match=why):
        committer.check_health()
    assert chain.ledger.height == 1


async def test_the_loop_goes_on_while_a_large_block_is_opened(
    chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashing, loop_ran = threading.Event(), threading.Event()
    hash_data = blocks.data_hash

    def slow(envelopes: Any) -> bytes:
        hashing.set()
        assert loop_ran.wait(10), "hashing holds up the loop"
        return hash_data(envelopes)

    block = blocks.new_block(1, chain.ledger.last_hash, [chain.network.transaction()[1]])
    first = blocks.parse_block(chain.ledger.block(0))
    monkeypatch.setattr(blocks, "data_hash", slow)
    committer = Committer(Ordered(first, block), chain.ledger, chain.validator, **LIMITS)
    running = asyncio.create_task(committer.run())
    async with asyncio.timeout(10):
        while not hashing.is_set():
            await asyncio.sleep(0.001)
        loop_ran.set()
        await chain.ledger.wait_for(2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_blocks_are_not_read_on_the_loop(chain: Any) -> None:
    """It may be many blocks behind, each of many megabytes."""

    class Read(Ordered):
        def block(self, number: int) -> bytes:
            assert threading.current_thread() is not threading.main_thread()
            return super().block(number)

    block = blocks.new_block(1, chain.ledger.last_hash, [chain.network.transaction()[1]])
    ordering = Read(blocks.parse_block(chain.ledger.block(0)), block)
    committer = Committer(ordering, chain.ledger, chain.validator, **LIMITS)
    running = asyncio.create_task(committer.run())
    caught_up = asyncio.create_task(chain.ledger.wait_for(2))
    async with asyncio.timeout(10):
        await asyncio.wait((running, caught_up), return_when=asyncio.FIRST_COMPLETED)
    committer.check_health()
    assert caught_up.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_log_that_was_lost_or_replaced_is_found_at_once(chain: Any) -> None:
    await chain.add()
    first = blocks.parse_block(chain.ledger.block(0))
    for ordering, why in [
        (Ordered(first), "the ledger has 2 blocks and the ordering log 1"),
        (Ordered(*chain_of(chain.network, [b"another"])), "block 1 .* is not the ledger's"),
    ]:
        committer = Committer(ordering, chain.ledger, chain.validator, **LIMITS)
        async with asyncio.timeout(10):
            with pytest.raises(CommitterStopped, match=why):
                await committer.run()
