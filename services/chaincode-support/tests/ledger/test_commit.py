"""Conflicts, duplicates, the chain, and what is readable after a commit."""

import asyncio
import itertools
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest
from testchannel import CHAINCODE, CHANNEL, fill_disk, make_room, results_of, writes

from chaincode_support.ledger import (
    BlockNotFound,
    BlockRefused,
    CommitFailed,
    Ledger,
    LedgerError,
    LedgerUnusable,
)
from chaincode_support.ledger.simulator import Simulator
from selvedge_common.protoutil import blocks
from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2 as kv


def read_and_write(simulator: Simulator) -> None:
    simulator.get_state(CHAINCODE, "a")
    simulator.put_state(CHAINCODE, "a", b"mine")


def scan_and_write(simulator: Simulator) -> None:
    for _ in simulator.range(CHAINCODE, "a", "m"):
        pass
    simulator.put_state(CHAINCODE, "result", b"x")


def look_at_two_and_write(simulator: Simulator) -> None:
    rows = simulator.range(CHAINCODE, "a", "m")
    next(rows), next(rows)
    simulator.put_state(CHAINCODE, "result", b"x")


def state_of(ledger: Ledger) -> dict[str, bytes]:
    simulator = ledger.simulator("")
    try:
        return dict(simulator.range(CHAINCODE, "", ""))
    finally:
        simulator.close()


async def test_of_two_that_read_the_same_version_the_first_wins(chain: Any) -> None:
    both = [chain.simulate(read_and_write) for _ in range(2)]
    assert await chain.add(*both) == ["VALID", "MVCC_READ_CONFLICT"]
    # In a later block too.
    assert await chain.add(chain.simulate(read_and_write), *both[1:]) == [
        "VALID",
        "DUPLICATE_TXID",
    ]


async def test_a_stale_read_of_an_earlier_block_is_a_conflict(chain: Any) -> None:
    stale = chain.simulate(read_and_write)
    assert await chain.add(chain.network.transaction(writes(a=b"1"))[1]) == ["VALID"]
    assert await chain.add(stale) == ["MVCC_READ_CONFLICT"]
    assert state_of(chain.ledger) == {"a": b"1"}


async def test_a_key_deleted_earlier_in_the_block_is_a_conflict_even_if_it_was_absent(
    chain: Any,
) -> None:
    reader = chain.simulate(read_and_write)
    delete = chain.network.transaction(writes(a=b""))[1]
    assert await chain.add(delete, reader) == ["VALID", "MVCC_READ_CONFLICT"]


@pytest.mark.parametrize(
    ("between", "code"),
    [
        (writes(bb=b"new"), "PHANTOM_READ_CONFLICT"),
        (writes(b=b""), "PHANTOM_READ_CONFLICT"),
        (writes(b=b"changed"), "PHANTOM_READ_CONFLICT"),
        (writes(z=b"outside"), "VALID"),
        (writes(m=b"the end is excluded"), "VALID"),
    ],
)
async def test_a_range_that_would_read_otherwise_is_a_phantom(
    chain: Any, between: bytes, code: str
) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1", b=b"2", c=b"3"))[1])
    scan = chain.simulate(scan_and_write)
    same_block = chain.simulate(scan_and_write)
    await chain.add(chain.network.transaction(between)[1])
    assert await chain.add(scan) == [code]
    assert await chain.add(same_block) == [code]


async def test_a_phantom_made_in_the_same_block_is_found(chain: Any) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1", b=b"2"))[1])
    scan = chain.simulate(scan_and_write)
    new = chain.network.transaction(writes(ab=b"new"))[1]
    assert await chain.add(new, scan) == ["VALID", "PHANTOM_READ_CONFLICT"]


async def test_behind_where_a_range_was_left_nothing_conflicts(chain: Any) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1", b=b"2", c=b"3"))[1])
    behind, before = (chain.simulate(look_at_two_and_write) for _ in range(2))
    await chain.add(chain.network.transaction(writes(bb=b"new"))[1])
    assert await chain.add(behind) == ["VALID"]
    await chain.add(chain.network.transaction(writes(aa=b"new"))[1])
    assert await chain.add(before) == ["PHANTOM_READ_CONFLICT"]


async def test_long_ranges_are_checked_by_their_hashes(chain: Any) -> None:
    many = {f"k{n:03}": b"x" for n in range(120)}
    await chain.add(chain.network.transaction(writes(**many))[1])

    def scan(simulator: Simulator) -> None:
        assert len(list(simulator.range(CHAINCODE, "k", "l"))) == 120
        simulator.put_state(CHAINCODE, "result", b"x")

    first, second = chain.simulate(scan), chain.simulate(scan)
    assert await chain.add(first) == ["VALID"]
    await chain.add(chain.network.transaction(writes(k119=b"changed"))[1])
    assert await chain.add(second) == ["PHANTOM_READ_CONFLICT"]


async def test_a_duplicate_is_flagged_within_a_block_and_ever_after(chain: Any) -> None:
    txid, envelope = chain.network.transaction(writes(a=b"1"))
    assert await chain.add(envelope, envelope) == ["VALID", "DUPLICATE_TXID"]
    assert await chain.add(envelope) == ["DUPLICATE_TXID"]
    assert chain.ledger.block_number_of(txid) == (1, 0)
    assert chain.ledger.has_transaction(txid)
    assert not chain.ledger.has_transaction("another")


async def test_metadata_alone_raises_the_version_and_never_makes_a_key(chain: Any) -> None:
    def metadata(key: str) -> bytes:
        write = kv.KVMetadataWrite(key=key, entries=[kv.KVMetadataEntry(name="P", value=b"p")])
        return results_of({CHAINCODE: kv.KVRWSet(metadata_writes=[write])})

    await chain.add(chain.network.transaction(writes(a=b"1"))[1])
    reader = chain.simulate(read_and_write)
    results = [metadata("a"), metadata("absent")]
    await chain.add(*(chain.network.transaction(result)[1] for result in results))
    assert state_of(chain.ledger) == {"a": b"1"}
    assert await chain.add(reader) == ["MVCC_READ_CONFLICT"]


async def test_within_a_block_metadata_is_a_conflict_only_where_there_is_a_key(chain: Any) -> None:
    write = [
        kv.KVMetadataWrite(key=key, entries=[kv.KVMetadataEntry(name="P", value=b"p")])
        for key in ("a", "absent")
    ]
    metadata = results_of({CHAINCODE: kv.KVRWSet(metadata_writes=write)})
    await chain.add(chain.network.transaction(writes(a=b"1"))[1])
    envelopes = [chain.network.transaction(metadata)[1]] + [
        chain.simulate(lambda simulator, key=key: simulator.get_state(CHAINCODE, key))
        for key in ("a", "absent")
    ]
    assert await chain.add(*envelopes) == ["VALID", "MVCC_READ_CONFLICT", "VALID"]


async def test_within_a_block_a_delete_is_a_conflict_even_of_no_key(chain: Any) -> None:
    envelopes = [
        chain.simulate(lambda simulator: simulator.delete_state(CHAINCODE, "absent")),
        chain.simulate(lambda simulator: simulator.get_state(CHAINCODE, "absent")),
    ]
    assert await chain.add(*envelopes) == ["VALID", "MVCC_READ_CONFLICT"]


async def test_blocks_are_kept_as_committed_and_hang_together(chain: Any) -> None:
    for value in (b"1", b"2"):
        await chain.add(chain.network.transaction(writes(a=value))[1], b"rubbish")
    stored = [blocks.parse_block(chain.ledger.block(number)) for number in range(3)]
    for before, block in itertools.pairwise(stored):
        assert block.header.previous_hash == blocks.header_hash(before.header)
        assert block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER][0] == 0
        assert block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER][1] != 0
    assert chain.ledger.last_hash == blocks.header_hash(stored[-1].header)
    with pytest.raises(BlockNotFound, match="has no block 3: its height is 3"):
        chain.ledger.block(3)


async def test_only_the_next_block_of_this_chain_is_taken(chain: Any) -> None:
    for number, previous, why in [
        (1, b"wrong", "does not follow the last one"),
        (2, chain.ledger.last_hash, "waits for block 1, not 2"),
        (0, b"", "waits for block 1, not 0"),
    ]:
        with pytest.raises(BlockRefused, match=why):
            await chain.ledger.commit(blocks.new_block(number, previous, []), [])
    assert await chain.add() == []
    assert chain.ledger.height == 2


async def test_waiters_wake_with_the_block_they_wait_for(chain: Any) -> None:
    waiting = asyncio.create_task(chain.ledger.wait_for(3))
    await chain.add()
    assert not waiting.done()
    await chain.add()
    async with asyncio.timeout(10):
        await waiting


async def test_a_commit_that_fails_changes_nothing_and_can_be_repeated(
    chain: Any, tmp_path: Path
) -> None:
    _, envelope = chain.network.transaction(writes(a=bytes(50_000)))
    fill_disk(chain.ledger._writer)
    with pytest.raises(CommitFailed, match=r"Block 1 .* could not be written .*disk is full"):
        await chain.add(envelope)
    assert chain.ledger.height == 1
    assert state_of(chain.ledger) == {}
    make_room(chain.ledger._writer)
    # As if undoing it had failed as well.
    chain.ledger._writer.execute("BEGIN")
    assert await chain.add(envelope) == ["VALID"]


async def test_what_can_never_be_written_says_so(chain: Any, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / f"{CHANNEL}.sqlite", isolation_level=None)
    other.execute("DROP TABLE history")
    other.close()
    with pytest.raises(LedgerUnusable, match=r"no such table: history.* `selvedge ledger rebuild`"):
        await chain.add(chain.network.transaction(writes(a=b"1"))[1])
    assert chain.ledger.height == 1


async def test_a_ledger_goes_on_where_it_was_closed(chain: Any, tmp_path: Path) -> None:
    txid, envelope = chain.network.transaction(writes(a=b"1"))
    await chain.add(envelope)
    chain.ledger.close()
    with pytest.raises(LedgerError):
        await chain.ledger.commit(chain.network.genesis(), [])
    reopened = Ledger.open(tmp_path, CHANNEL)
    assert (reopened.height, reopened.last_hash) == (2, chain.ledger.last_hash)
    assert state_of(reopened) == {"a": b"1"}
    assert reopened.has_transaction(txid)
    reopened.close()


def test_what_cannot_be_a_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnusable, match="no channel name"):
        Ledger.open(tmp_path, "../elsewhere")
    with pytest.raises(LedgerUnusable, match=r"ledger.synchronous is 'SOMETIMES'"):
        Ledger.open(tmp_path, CHANNEL, synchronous="SOMETIMES")
    Ledger.open(tmp_path, "another").close()
    (tmp_path / "another.sqlite").rename(tmp_path / f"{CHANNEL}.sqlite")
    with pytest.raises(LedgerUnusable, match="belongs to channel another"):
        Ledger.open(tmp_path, CHANNEL)
    (tmp_path / "broken.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(LedgerUnusable, match="`selvedge ledger rebuild`"):
        Ledger.open(tmp_path, "broken")


async def test_metrics_tell_height_codes_and_chaincodes(chain: Any) -> None:
    def counted(**labels: str) -> float:
        labels = {"channel": CHANNEL, **labels}
        return REGISTRY.get_sample_value("ledger_transaction_count", labels) or 0

    valid = {
        "transaction_type": "ENDORSER_TRANSACTION",
        "chaincode": "basic:1.0",
        "validation_code": "VALID",
    }
    broken = {
        "transaction_type": "unknown",
        "chaincode": "unknown",
        "validation_code": "INVALID_OTHER_REASON",
    }
    before = counted(**valid), counted(**broken)
    await chain.add(chain.network.transaction(writes(a=b"1"))[1], b"rubbish")
    assert (counted(**valid), counted(**broken)) == (before[0] + 1, before[1] + 1)
    forged = chain.network.endorse(
        chain.network.propose(b"x", chaincode="made-up"), b"", endorsers=[chain.network.client]
    )
    await chain.add(forged.SerializeToString())
    assert counted(
        transaction_type="ENDORSER_TRANSACTION",
        chaincode="unknown",
        validation_code="ENDORSEMENT_POLICY_FAILURE",
    )
    assert b"made-up" not in generate_latest()
    height = REGISTRY.get_sample_value("ledger_blockchain_height", {"channel": CHANNEL})
    assert height == 3
