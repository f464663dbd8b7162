"""The read-write set, compared with messages built by hand from their definitions."""

from hashlib import sha256

import pytest
from prometheus_client import REGISTRY

from chaincode_support.ledger import SimulationTooLarge
from chaincode_support.ledger.read_write_set import (
    ENTRY_BYTES,
    RangeReads,
    ReadWriteSet,
    Version,
)
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2 as kv

LIMIT = 10_000


def read(key: str, block: int, tx: int) -> kv.KVRead:
    return kv.KVRead(key=key, version=kv.Version(block_num=block, tx_num=tx))


def expected(**namespaces: kv.KVRWSet) -> bytes:
    return rwset_pb2.TxReadWriteSet(
        ns_rwset=[
            rwset_pb2.NsReadWriteSet(namespace=name, rwset=rwset.SerializeToString())
            for name, rwset in namespaces.items()
        ]
    ).SerializeToString()


def test_nothing_read_or_written_is_empty() -> None:
    assert ReadWriteSet(LIMIT).serialize() == b""


def test_namespaces_reads_and_writes_are_sorted_and_the_last_write_counts() -> None:
    recorded = ReadWriteSet(LIMIT)
    recorded.write("zcc", "k", b"1")
    recorded.read("acc", "b", Version(7, 1))
    recorded.read("acc", "a", None)
    recorded.write("acc", "é", b"first")
    recorded.write("acc", "z", b"")
    recorded.write("acc", "é", b"last")
    assert recorded.serialize() == expected(
        acc=kv.KVRWSet(
            reads=[kv.KVRead(key="a"), read("b", 7, 1)],
            writes=[kv.KVWrite(key="z", is_delete=True), kv.KVWrite(key="é", value=b"last")],
        ),
        zcc=kv.KVRWSet(writes=[kv.KVWrite(key="k", value=b"1")]),
    )


def test_the_version_of_the_very_first_transaction_is_present() -> None:
    recorded = ReadWriteSet(LIMIT)
    recorded.read("cc", "k", Version(0, 0))
    assert recorded.serialize() == expected(
        cc=kv.KVRWSet(reads=[kv.KVRead(key="k", version=kv.Version())])
    )


def test_a_range_left_early_ends_with_its_last_key() -> None:
    recorded = ReadWriteSet(LIMIT)
    part = recorded.range("cc", "a", "m")
    part.add("b", Version(1, 0))
    whole = recorded.range("cc", "a", "m")
    whole.add("b", Version(1, 0))
    whole.exhaust()
    again = recorded.range("cc", "a", "m")
    again.exhaust()
    raw = kv.QueryReads(kv_reads=[read("b", 1, 0)])
    assert recorded.serialize() == expected(
        cc=kv.KVRWSet(
            range_queries_info=[
                kv.RangeQueryInfo(start_key="a", end_key="b", raw_reads=raw),
                kv.RangeQueryInfo(start_key="a", end_key="m", itr_exhausted=True, raw_reads=raw),
            ]
        )
    )


def test_an_empty_range_has_no_reads() -> None:
    recorded = ReadWriteSet(LIMIT)
    recorded.range("cc", "a", "m").exhaust()
    info = kv.RangeQueryInfo(start_key="a", end_key="m", itr_exhausted=True)
    assert recorded.serialize() == expected(cc=kv.KVRWSet(range_queries_info=[info]))


def rows(start: int, stop: int) -> bytes:
    reads = [read(f"k{n:04}", 1, n) for n in range(start, stop)]
    return sha256(kv.QueryReads(kv_reads=reads).SerializeToString()).digest()


def summary(count: int, degree: int) -> kv.RangeQueryInfo:
    reads = RangeReads(degree)
    for n in range(count):
        reads.add(f"k{n:04}", Version(1, n))
    info = kv.RangeQueryInfo()
    reads.write_to(info)
    return info


@pytest.mark.parametrize("count", [1, 50])
def test_up_to_fifty_rows_are_listed(count: int) -> None:
    assert len(summary(count, 50).raw_reads.kv_reads) == count


def test_more_rows_become_leaves_of_fifty_one() -> None:
    assert summary(120, 50).reads_merkle_hashes == kv.QueryReadsMerkleSummary(
        max_degree=50, max_level=1, max_level_hashes=[rows(0, 51), rows(51, 102), rows(102, 120)]
    )


def test_more_leaves_become_a_level_above() -> None:
    # Degree 2: three rows a leaf, three nodes a parent. Ten rows: leaves 3+3+3+1; the first three
    # leaves have a parent, and the fourth moves up alone.
    leaves = [rows(0, 3), rows(3, 6), rows(6, 9), rows(9, 10)]
    parent = sha256(b"".join(leaves[:3])).digest()
    assert summary(10, 2).reads_merkle_hashes == kv.QueryReadsMerkleSummary(
        max_degree=2, max_level=2, max_level_hashes=[parent, leaves[3]]
    )


def test_a_top_level_over_the_degree_becomes_one_node() -> None:
    # Twenty-five rows: eight leaves of three and one of one; two parents of three leaves stand
    # when the end comes, the last three leaves having just made a third.
    leaves = [rows(n, min(n + 3, 25)) for n in range(0, 25, 3)]
    parents = [sha256(b"".join(leaves[n : n + 3])).digest() for n in (0, 3, 6)]
    assert summary(25, 2).reads_merkle_hashes == kv.QueryReadsMerkleSummary(
        max_degree=2, max_level=3, max_level_hashes=[sha256(b"".join(parents)).digest()]
    )


def test_the_size_is_exact_and_what_is_written_again_counts_once() -> None:
    recorded = ReadWriteSet(3 * ENTRY_BYTES + len("räkäk") + 10 + 2)
    for _ in range(5):
        recorded.read("cc", "rä", None)
        recorded.write("cc", "kä", bytes(10))
    recorded.write("cc", "kä", bytes(9))
    recorded.write("cc", "k", b"1")
    with pytest.raises(SimulationTooLarge, match=r"orderer\.batchSize\.absoluteMaxBytes"):
        recorded.write("cc", "k", b"12")


def test_metadata_counts_with_its_names_and_what_replaces_it_counts_alone() -> None:
    recorded = ReadWriteSet(3 * ENTRY_BYTES + len("knämem".encode()) + 10)
    for _ in range(5):
        recorded.write_metadata("cc", "k", {"näme": bytes(10), "m": b""})
        recorded.write_metadata("cc", "k", {})
    recorded.write_metadata("cc", "k", {"näme": bytes(10), "m": b""})
    assert recorded.has_writes
    held = recorded.serialize()
    with pytest.raises(SimulationTooLarge):
        recorded.write_metadata("cc", "k", {"näme": bytes(11), "m": b""})
    assert recorded.serialize() == held


def test_what_is_refused_is_not_recorded_and_counted_once() -> None:
    counter = "ledger_simulations_too_large_total"
    before = REGISTRY.get_sample_value(counter) or 0
    recorded = ReadWriteSet(LIMIT)
    recorded.write("cc", "k", b"1")
    held = recorded.serialize()
    for key in ("k", "other"):
        with pytest.raises(SimulationTooLarge, match=f"more than {LIMIT} bytes"):
            recorded.write("cc", key, bytes(LIMIT))
    with pytest.raises(SimulationTooLarge):
        recorded.read("cc", "k", None)
    with pytest.raises(SimulationTooLarge):
        recorded.range("cc", "", "")
    assert recorded.serialize() == held
    assert REGISTRY.get_sample_value(counter) == before + 1


def test_reads_and_open_ranges_count() -> None:
    size = ENTRY_BYTES + len("k0")
    reading, ranging = ReadWriteSet(9 * size), ReadWriteSet(9 * size)
    for n in range(9):
        reading.read("cc", f"k{n}", None)
        ranging.range("cc", "a", "b")
    with pytest.raises(SimulationTooLarge):
        reading.read("cc", "k9", None)
    with pytest.raises(SimulationTooLarge):
        ranging.range("cc", "a", "b")


def test_rows_count_until_they_are_hashed() -> None:
    recorded = ReadWriteSet(LIMIT)
    part = recorded.range("cc", "", "")
    for n in range(20_000):
        part.add(f"k{n:05}", Version(1, n))
    recorded = ReadWriteSet(50 * ENTRY_BYTES)
    part = recorded.range("cc", "", "")
    for n in range(40):
        part.add(f"k{n:05}", Version(1, n))
    other = recorded.range("cc", "", "")
    for n in range(2):
        other.add(f"k{n:05}", Version(1, n))
    with pytest.raises(SimulationTooLarge):
        other.add("k" * 7 * ENTRY_BYTES, Version(1, 2))
