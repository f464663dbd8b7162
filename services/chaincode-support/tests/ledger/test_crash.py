"""kill -9 in the middle of it: whatever was acknowledged is there, whole, once, and in order."""

import itertools
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from testchannel import CHAINCODE, CHANNEL

from chaincode_support.ledger import Ledger
from chaincode_support.ordering.log import BlockLog
from selvedge_common.protoutil import blocks, metadata, transactions
from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer import transaction_pb2

PROGRAM = Path(__file__).with_name("crashing.py")
ROUNDS = 4


def run_until_killed(folder: Path, lines: int) -> list[list[str]]:
    """What the child acknowledged before it was killed, after about `lines` lines."""
    child = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])},
    )
    assert child.stdout is not None
    said = list(itertools.islice(child.stdout, lines))
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    # The last line may have been cut off in the middle.
    whole = [line for line in (*said, *rest.splitlines(keepends=True)) if line.endswith("\n")]
    return [line.split() for line in whole]


def read_chain(block_of: Callable[[int], bytes], height: int) -> list[common_pb2.Block]:
    chain = [blocks.parse_block(block_of(number)) for number in range(height)]
    for before, after in itertools.pairwise(chain):
        assert after.header.number == before.header.number + 1
        assert after.header.previous_hash == blocks.header_hash(before.header)
    for block in chain:
        assert block.header.data_hash == blocks.data_hash(block.data.data)
    return chain


def written_by(transaction: transactions.OpenedTransaction) -> dict[str, bytes]:
    action = transaction.open_action()
    assert action is not None
    results = action.chaincode_action.results
    (part,) = rwset_pb2.TxReadWriteSet.FromString(results).ns_rwset
    writes = kv_rwset_pb2.KVRWSet.FromString(part.rwset).writes
    return {write.key: write.value for write in writes}


@pytest.mark.timeout(120)
def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    chosen = random.Random()
    ordered: list[str] = []
    for round_number in range(ROUNDS):
        acknowledged = run_until_killed(tmp_path, chosen.randint(5, 120))
        ordered += [name for what, name in acknowledged if what == "ordered"]
        committed = max((int(n) for what, n in acknowledged if what == "committed"), default=-1)

        log = BlockLog.open(tmp_path, CHANNEL)
        chain = read_chain(log.block, log.height)
        log.close()
        in_order = Counter(
            transactions.open_transaction(envelope).txid
            for block in chain[1:]
            for envelope in block.data.data
        )
        assert set(ordered) <= set(in_order), f"lost in round {round_number}"
        assert max(in_order.values(), default=1) == 1

        ledger = Ledger.open(tmp_path / "ledger", CHANNEL)
        assert committed < ledger.height <= len(chain)
        state: dict[str, bytes] = {}
        for block, as_ordered in zip(read_chain(ledger.block, ledger.height), chain, strict=False):
            assert block.header == as_ordered.header
            assert block.data == as_ordered.data
            assert set(metadata.validation_codes(block)) == {transaction_pb2.VALID}
            for envelope in block.data.data if block.header.number else ():
                opened = transactions.open_transaction(envelope)
                assert ledger.block_number_of(opened.txid) == (block.header.number, 0)
                state |= written_by(opened)
        simulator = ledger.simulator("")
        assert dict(simulator.range(CHAINCODE, "", "")) == state
        simulator.close()
        ledger.close()
    assert ordered
