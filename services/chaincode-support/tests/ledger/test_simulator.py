"""Simulation: one snapshot, own writes unseen, what was read is what is recorded."""

from typing import Any

import pytest
from testchannel import CHAINCODE, writes

from chaincode_support.ledger import Ledger, LedgerBusy, LedgerClosed
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2 as kv


def recorded(results: bytes) -> kv.KVRWSet:
    (part,) = rwset_pb2.TxReadWriteSet.FromString(results).ns_rwset
    assert part.namespace == CHAINCODE
    return kv.KVRWSet.FromString(part.rwset)


async def test_a_simulation_does_not_see_a_commit_in_between(chain: Any) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1", b=b"1"))[1])
    simulator = chain.ledger.simulator("tx")
    await chain.add(chain.network.transaction(writes(a=b"2", b=b"", c=b"2"))[1])
    assert simulator.get_state(CHAINCODE, "a") == b"1"
    assert list(simulator.range(CHAINCODE, "", "")) == [("a", b"1"), ("b", b"1")]
    simulator.close()
    later = chain.ledger.simulator("tx")
    assert list(later.range(CHAINCODE, "", "")) == [("a", b"2"), ("c", b"2")]
    later.close()


async def test_a_simulation_never_sees_its_own_writes(chain: Any) -> None:
    simulator = chain.ledger.simulator("tx")
    simulator.put_state(CHAINCODE, "a", b"1")
    simulator.delete_state(CHAINCODE, "gone")
    assert simulator.get_state(CHAINCODE, "a") is None
    assert list(simulator.range(CHAINCODE, "", "")) == []
    found = recorded(simulator.results())
    simulator.close()
    assert list(found.reads) == [kv.KVRead(key="a")]
    assert list(found.writes) == [
        kv.KVWrite(key="a", value=b"1"),
        kv.KVWrite(key="gone", is_delete=True),
    ]


async def test_reads_carry_the_height_that_wrote_the_key(chain: Any) -> None:
    transactions = [chain.network.transaction(writes(**{key: b"x"}))[1] for key in ("a", "b")]
    await chain.add(*transactions)
    simulator = chain.ledger.simulator("tx")
    simulator.get_state(CHAINCODE, "b")
    simulator.get_state(CHAINCODE, "nothing")
    found = recorded(simulator.results())
    simulator.close()
    assert list(found.reads) == [
        kv.KVRead(key="b", version=kv.Version(block_num=1, tx_num=1)),
        kv.KVRead(key="nothing"),
    ]


async def test_a_range_goes_in_byte_order_and_leaves_composite_keys_to_its_start(
    chain: Any,
) -> None:
    keys = ["\x00type\x00a\x00", "a", "a\x00b", "é", "\uffff", "\U0001f600"]
    await chain.add(chain.network.transaction(writes(**dict.fromkeys(keys, b"x")))[1])
    simulator = chain.ledger.simulator("tx")
    assert [key for key, _ in simulator.range(CHAINCODE, "", "")] == keys
    assert [key for key, _ in simulator.range(CHAINCODE, "\x01", "")] == keys[1:]
    assert [key for key, _ in simulator.range(CHAINCODE, "a", "é")] == ["a", "a\x00b"]
    assert [key for key, _ in simulator.range("other", "", "")] == []
    simulator.close()


async def test_a_range_left_early_records_only_what_was_read(chain: Any) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1", b=b"2", c=b"3"))[1])
    simulator = chain.ledger.simulator("tx")
    part = simulator.range(CHAINCODE, "a", "z")
    assert [next(part), next(part)] == [("a", b"1"), ("b", b"2")]
    (info,) = recorded(simulator.results()).range_queries_info
    simulator.close()
    assert (info.start_key, info.end_key, info.itr_exhausted) == ("a", "b", False)
    assert [read.key for read in info.raw_reads.kv_reads] == ["a", "b"]


async def test_interleaved_ranges_do_not_disturb_each_other(chain: Any) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1", b=b"2"))[1])
    simulator = chain.ledger.simulator("tx")
    first, second = (simulator.range(CHAINCODE, "", "") for _ in range(2))
    assert [next(first), next(second), next(first), next(second)] == [
        ("a", b"1"),
        ("a", b"1"),
        ("b", b"2"),
        ("b", b"2"),
    ]
    simulator.close()


def test_simulations_are_bounded_and_places_come_back(ledger: Ledger) -> None:
    running = [ledger.simulator(f"tx{n}", f"chaincode{n}") for n in range(4)]
    with pytest.raises(LedgerBusy, match=r"All 4 simulations .* raise ledger.maxSimulations"):
        ledger.simulator("one too many", "chaincode0")
    running[0].close()
    running[0].close()
    ledger.simulator("fits again").close()
    for simulator in running[1:]:
        simulator.close()


def test_a_chaincode_gets_its_first_simulation_although_others_share_all(ledger: Ledger) -> None:
    running = [ledger.simulator(f"tx{n}", f"chaincode{n}") for n in range(4)]
    running.append(ledger.simulator("first", "another"))
    for name in ("another", "a third"):
        with pytest.raises(LedgerBusy):
            ledger.simulator("one too many", name)
    for simulator in running:
        simulator.close()


def test_the_last_simulations_are_for_chaincodes_that_run_few(ledger: Ledger) -> None:
    running = [ledger.simulator(f"tx{n}", "greedy") for n in range(3)]
    with pytest.raises(LedgerBusy, match=r"greedy runs 3 of the 4 .* the few .* are for others"):
        ledger.simulator("one too many", "greedy")
    running.append(ledger.simulator("of another", "modest"))
    running[0].close()
    running.append(ledger.simulator("a place again", "modest, too"))
    for simulator in running[1:]:
        simulator.close()


def test_a_closed_simulation_does_nothing_more(ledger: Ledger) -> None:
    simulator = ledger.simulator("tx")
    rows = simulator.range(CHAINCODE, "", "")
    results = simulator.results()
    with pytest.raises(LedgerClosed, match="results of transaction tx have been taken"):
        simulator.put_state(CHAINCODE, "late", b"x")
    simulator.close()
    assert simulator.results() == results
    with pytest.raises(LedgerClosed, match="simulation of transaction tx has ended"):
        simulator.get_state(CHAINCODE, "late")
    with pytest.raises(LedgerClosed):
        next(rows)
