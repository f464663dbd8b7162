"""Blocks and transactions by what clients know of them: numbers, hashes, transaction ids."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testchannel import writes

from chaincode_support.ledger import BlockNotFound, Ledger, TransactionNotFound
from chaincode_support.ledger.store import SCHEMAS
from chaincode_support.ledger.stored_block import BlockDamaged, read_envelope
from selvedge_common.protoutil import blocks
from selvedge_protos.common.ledger_pb2 import BlockchainInfo
from selvedge_protos.peer import transaction_pb2


async def test_every_block_is_found_by_the_hash_of_its_header(chain: Any) -> None:
    for value in (b"1", b"2"):
        await chain.add(chain.network.transaction(writes(a=value))[1])
    for number in range(3):
        stored = chain.ledger.block(number)
        digest = blocks.header_hash(blocks.parse_block(stored).header)
        assert chain.ledger.block_by_hash(digest) == stored
    with pytest.raises(BlockNotFound, match=f"no block with the header hash {'00' * 32}: give"):
        chain.ledger.block_by_hash(bytes(32))
    with pytest.raises(BlockNotFound, match="header hash : give the SHA-256"):
        chain.ledger.block_by_hash(b"")


async def test_every_transaction_is_found_by_its_id_with_its_block_and_code(chain: Any) -> None:
    def read_and_write(simulator: Any) -> None:
        simulator.get_state("basic", "a")
        simulator.put_state("basic", "a", b"2")

    first, envelope = chain.network.transaction(writes(a=b"1"))
    stale = chain.simulate(read_and_write)
    assert await chain.add(envelope, b"rubbish", stale) == [
        "VALID",
        "INVALID_OTHER_REASON",
        "MVCC_READ_CONFLICT",
    ]
    assert await chain.add(envelope) == ["DUPLICATE_TXID"]
    with sqlite3.connect(chain.ledger.file) as connection:
        (second,) = connection.execute("SELECT txid FROM tx WHERE position = 2").fetchone()
    connection.close()
    assert chain.ledger.transaction(first) == (envelope, transaction_pb2.VALID)
    assert chain.ledger.transaction(second) == (stale, transaction_pb2.MVCC_READ_CONFLICT)
    for txid in (first, second):
        assert chain.ledger.block_by_txid(txid) == chain.ledger.block(1)


def test_no_reader_waits_long_for_a_lock(ledger: Ledger) -> None:
    """Most of them read on the event loop, which everybody waits for meanwhile."""
    snapshot = ledger._snapshots.take("basic")
    with ledger._readers.connection() as reader:
        for connection in (reader, snapshot.connection):
            [wait] = connection.execute("PRAGMA busy_timeout").fetchone()
            assert 0 < wait <= 50  # milliseconds
    ledger._snapshots.give_back(snapshot)


async def test_readers_are_as_many_as_read_at_a_time(chain: Any) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1"))[1])
    stored = [chain.ledger.block(number) for number in range(2)]
    with closing(chain.ledger.blocks(0, 1, 1 << 30)) as slow:
        assert next(slow) == stored[0]
        assert [*chain.ledger.blocks(0, 1, 1 << 30)] == stored
        assert next(slow) == stored[1]
    assert len(chain.ledger._readers._idle) == 2
    assert [*chain.ledger.blocks(0, 1, 1 << 30)] == stored
    assert len(chain.ledger._readers._idle) == 2


def test_what_is_not_there_is_named_and_not_repeated_at_length(ledger: Ledger) -> None:
    for find in (ledger.transaction, ledger.block_by_txid):
        with pytest.raises(TransactionNotFound, match="no block with the transaction 'nothing'"):
            find("nothing")
        with pytest.raises(BlockNotFound) as refused:
            find("x" * 100_000)
        assert len(str(refused.value)) < 300


@pytest.mark.parametrize("number", [-1, 0, 2**63, 2**64 - 1])
def test_a_number_of_no_block_is_named_however_large(ledger: Ledger, number: int) -> None:
    with pytest.raises(BlockNotFound, match=f"has no block {number}: its height is 0"):
        ledger.block(number)


def test_an_empty_chain_has_height_and_hashes_of_nothing(ledger: Ledger) -> None:
    assert ledger.chain_info() == BlockchainInfo()


async def test_the_chain_is_told_by_its_last_two_blocks(chain: Any) -> None:
    hashes = [b"", chain.ledger.last_hash]
    for height in (1, 2, 3):
        assert chain.ledger.chain_info() == BlockchainInfo(
            height=height, currentBlockHash=hashes[-1], previousBlockHash=hashes[-2]
        )
        newest = blocks.parse_block(chain.ledger.block(height - 1)).header
        assert (newest.previous_hash, blocks.header_hash(newest)) == tuple(hashes[-2:])
        await chain.add()
        hashes.append(chain.ledger.last_hash)


@given(
    st.lists(st.binary(max_size=300) | st.integers(0, 40_000).map(bytes), min_size=1, max_size=20),
    st.data(),
)
def test_one_envelope_is_read_out_of_any_block(envelopes: list[bytes], data: st.DataObject) -> None:
    block = blocks.new_block(7, bytes(32), envelopes)
    stored = block.SerializeToString()
    for position, envelope in enumerate(envelopes):
        assert envelope_of(stored, position) == envelope
    block.ClearField("metadata")
    cut = data.draw(st.integers(0, block.ByteSize() - 1))
    for damaged, position in ((stored, len(envelopes)), (stored[:cut], len(envelopes) - 1)):
        with pytest.raises(BlockDamaged, match="block 7 in it is no block"):
            envelope_of(damaged, position)


def envelope_of(stored: bytes, position: int) -> bytes:
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript("".join(SCHEMAS))
        connection.execute("INSERT INTO block VALUES (7, x'', ?)", (stored,))
        return read_envelope(connection, 7, position)
    finally:
        connection.close()
