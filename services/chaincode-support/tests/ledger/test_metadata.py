"""Metadata of keys: what is recorded, what is read after a commit, and whose version it shares."""

from typing import Any

import pytest
from testchannel import CHAINCODE, results_of, writes

from chaincode_support.ledger import Ledger, Simulator
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2 as kv

POLICY = "VALIDATION_PARAMETER"


def read(key: str, block: int | None = None, tx: int = 0) -> kv.KVRead:
    return kv.KVRead(
        key=key, version=None if block is None else kv.Version(block_num=block, tx_num=tx)
    )


def metadata_of(ledger: Ledger, key: str) -> dict[str, bytes]:
    simulator = ledger.simulator("")
    try:
        return simulator.get_metadata(CHAINCODE, key)
    finally:
        simulator.close()


def put(key: str, **entries: bytes) -> Any:
    return lambda simulator: simulator.put_metadata(CHAINCODE, key, entries)


def test_writes_are_sorted_by_key_and_name_and_the_last_of_a_key_counts(ledger: Ledger) -> None:
    simulator = ledger.simulator("tx")
    simulator.put_metadata(CHAINCODE, "z", {"gone": b"1"})
    simulator.put_metadata(CHAINCODE, "é", {"é": b"2", "a": b"", "Z": b"1"})
    simulator.put_metadata(CHAINCODE, "z", {})
    simulator.put_state(CHAINCODE, "é", b"value")
    assert simulator.results() == results_of(
        {
            CHAINCODE: kv.KVRWSet(
                writes=[kv.KVWrite(key="é", value=b"value")],
                metadata_writes=[
                    kv.KVMetadataWrite(key="z"),
                    kv.KVMetadataWrite(
                        key="é",
                        entries=[
                            kv.KVMetadataEntry(name="Z", value=b"1"),
                            kv.KVMetadataEntry(name="a"),
                            kv.KVMetadataEntry(name="é", value=b"2"),
                        ],
                    ),
                ],
            )
        }
    )
    simulator.close()


def test_what_was_put_is_not_what_the_caller_makes_of_it_later(ledger: Ledger) -> None:
    simulator = ledger.simulator("tx")
    entries = {POLICY: b"one"}
    simulator.put_metadata(CHAINCODE, "k", entries)
    entries[POLICY] = b"two"
    assert b"one" in simulator.results()
    simulator.close()


async def test_reading_it_is_recorded_as_a_read_of_the_key(chain: Any) -> None:
    await chain.add(chain.network.transaction(writes(plain=b"1"))[1])
    await chain.add(chain.simulate(put("plain", name=b"x")))
    simulator = chain.ledger.simulator("tx")
    assert simulator.get_metadata(CHAINCODE, "absent") == {}
    assert simulator.get_metadata(CHAINCODE, "plain") == {"name": b"x"}
    assert simulator.results() == results_of(
        {CHAINCODE: kv.KVRWSet(reads=[read("absent"), read("plain", 2)])}
    )
    simulator.close()


async def test_it_is_replaced_as_a_whole_and_outlives_the_value_that_changes(chain: Any) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1"))[1])
    assert metadata_of(chain.ledger, "a") == {}
    await chain.add(chain.simulate(put("a", name=b"x", other=b"")))
    assert metadata_of(chain.ledger, "a") == {"name": b"x", "other": b""}
    await chain.add(chain.network.transaction(writes(a=b"2"))[1])
    assert metadata_of(chain.ledger, "a") == {"name": b"x", "other": b""}
    await chain.add(chain.simulate(put("a", third=b"y")))
    assert metadata_of(chain.ledger, "a") == {"third": b"y"}
    await chain.add(chain.simulate(put("a")))
    assert metadata_of(chain.ledger, "a") == {}


async def test_it_goes_with_the_key(chain: Any) -> None:
    def create(simulator: Simulator) -> None:
        simulator.put_metadata(CHAINCODE, "a", {"name": b"x"})
        simulator.put_state(CHAINCODE, "a", b"1")

    def delete(simulator: Simulator) -> None:
        simulator.put_metadata(CHAINCODE, "a", {"name": b"y"})
        simulator.delete_state(CHAINCODE, "a")

    await chain.add(chain.simulate(create))
    assert metadata_of(chain.ledger, "a") == {"name": b"x"}
    await chain.add(chain.simulate(delete), chain.network.transaction(writes(a=b"2"))[1])
    assert metadata_of(chain.ledger, "a") == {}


@pytest.mark.parametrize("key", ["a", "absent"])
async def test_a_change_is_a_conflict_for_who_read_the_value_and_the_other_way_round(
    chain: Any, key: str
) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1"))[1])

    def read_value(simulator: Simulator) -> None:
        simulator.get_state(CHAINCODE, key)

    def read_metadata(simulator: Simulator) -> None:
        simulator.get_metadata(CHAINCODE, key)

    def read_range(simulator: Simulator) -> None:
        list(simulator.range(CHAINCODE, "", ""))

    earlier = [chain.simulate(run) for run in (read_value, read_metadata, read_range)]
    later = chain.simulate(read_metadata)
    await chain.add(chain.simulate(put(key, name=b"x")))
    assert await chain.add(*earlier) == (
        ["MVCC_READ_CONFLICT", "MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT"]
        if key == "a"
        else ["VALID"] * 3
    )
    await chain.add(chain.network.transaction(writes(**{key: b"2"}))[1])
    assert await chain.add(later) == ["MVCC_READ_CONFLICT"]
