"""A key's history: whole, newest first, of valid transactions only, and on the snapshot."""

import random
from typing import Any

import pytest
from testchannel import CHAINCODE, results_of, writes

from chaincode_support.ledger import Ledger, LedgerClosed, LedgerUnusable, Simulator
from selvedge_common.protoutil.transactions import open_transaction
from selvedge_protos.ledger.queryresult.kv_query_result_pb2 import KeyModification
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2 as kv


def modification(envelope: bytes, value: bytes, *, is_delete: bool = False) -> KeyModification:
    header = open_transaction(envelope).channel_header
    assert header.HasField("timestamp")
    return KeyModification(
        tx_id=header.tx_id, value=value, timestamp=header.timestamp, is_delete=is_delete
    )


def history_of(ledger: Ledger, key: str, namespace: str = CHAINCODE) -> list[KeyModification]:
    simulator = ledger.simulator("")
    try:
        return list(simulator.history(namespace, key))
    finally:
        simulator.close()


async def test_values_and_deletes_of_valid_transactions_come_newest_first(chain: Any) -> None:
    def read_and_write(simulator: Simulator) -> None:
        simulator.get_state(CHAINCODE, "a")
        simulator.put_state(CHAINCODE, "a", b"3")

    network = chain.network
    created, gone, other = (network.transaction(writes(a=v))[1] for v in (b"1", b"", b"2"))
    assert await chain.add(created, network.transaction(writes(b=b"0"))[1]) == ["VALID"] * 2
    stale = chain.simulate(read_and_write)
    assert await chain.add(gone, b"rubbish", other, stale, other) == [
        "VALID",
        "INVALID_OTHER_REASON",
        "VALID",
        "MVCC_READ_CONFLICT",
        "DUPLICATE_TXID",
    ]
    assert history_of(chain.ledger, "a") == [
        modification(other, b"2"),
        modification(gone, b"", is_delete=True),
        modification(created, b"1"),
    ]
    assert history_of(chain.ledger, "nothing") == []
    assert history_of(chain.ledger, "a", "other") == []


async def test_metadata_is_no_part_of_it(chain: Any) -> None:
    _, created = chain.network.transaction(writes(a=b"1"))
    await chain.add(created)
    assert await chain.add(
        chain.simulate(lambda simulator: simulator.put_metadata(CHAINCODE, "a", {"name": b"x"}))
    ) == ["VALID"]
    assert history_of(chain.ledger, "a") == [modification(created, b"1")]


async def test_a_key_named_twice_was_written_once_and_last_counts(chain: Any) -> None:
    twice = [kv.KVWrite(key="a", value=value) for value in (b"first", b"last")]
    _, envelope = chain.network.transaction(results_of({CHAINCODE: kv.KVRWSet(writes=twice)}))
    assert await chain.add(envelope) == ["VALID"]
    assert history_of(chain.ledger, "a") == [modification(envelope, b"last")]
    simulator = chain.ledger.simulator("")
    assert simulator.get_state(CHAINCODE, "a") == b"last"
    simulator.close()


async def test_it_ends_with_the_snapshot_and_leaves_nothing_in_the_results(chain: Any) -> None:
    _, envelope = chain.network.transaction(writes(a=b"1"))
    await chain.add(envelope)
    simulator = chain.ledger.simulator("tx")
    history = simulator.history(CHAINCODE, "a")
    await chain.add(chain.network.transaction(writes(a=b"2"))[1])
    assert list(history) == [modification(envelope, b"1")]
    assert simulator.results() == b""
    simulator.close()


async def test_a_history_does_not_outlive_its_simulation(chain: Any) -> None:
    for value in (b"1", b"2"):
        await chain.add(chain.network.transaction(writes(a=value))[1])
    simulator = chain.ledger.simulator("tx")
    left, open_, untouched = (simulator.history(CHAINCODE, "a") for _ in range(3))
    next(left), next(open_)
    left.close()
    assert list(left) == []
    simulator.close()
    for history in (open_, untouched):
        with pytest.raises(LedgerClosed, match="simulation of transaction tx has ended"):
            next(history)
    with pytest.raises(LedgerClosed):
        simulator.history(CHAINCODE, "a")


@pytest.mark.parametrize("seed", range(3))
async def test_it_tells_all_that_random_blocks_did(chain: Any, seed: int) -> None:
    chosen = random.Random(seed)
    done: dict[str, list[KeyModification]] = {key: [] for key in "abc"}
    for _ in range(10):
        envelopes = []
        for _ in range(chosen.randrange(5)):
            keys = chosen.sample("abc", chosen.randint(1, 3))
            values = {key: chosen.randbytes(chosen.choice([0, 1, 200, 20_000])) for key in keys}
            _, envelope = chain.network.transaction(writes(**values))
            envelopes.append(envelope)
            for key, value in values.items():
                done[key].insert(0, modification(envelope, value, is_delete=not value))
        await chain.add(*envelopes)
    simulator = chain.ledger.simulator("")
    for key, modifications in done.items():
        assert list(simulator.history(CHAINCODE, key)) == modifications
        newest = modifications[0].value if modifications else b""
        assert (simulator.get_state(CHAINCODE, key) or b"") == newest
    simulator.close()


@pytest.mark.parametrize("position", [0, 1])
async def test_a_history_that_is_not_the_blocks_is_named(chain: Any, position: int) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1"))[1], b"rubbish")
    chain.ledger._writer.execute(
        "INSERT INTO history VALUES (?, 'never', 1, ?)", (CHAINCODE, position)
    )
    with pytest.raises(LedgerUnusable, match=f"{position} of block 1 does not write .*'never'"):
        history_of(chain.ledger, "never")
