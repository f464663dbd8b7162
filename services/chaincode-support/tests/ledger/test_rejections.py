"""The log says of each rejected transaction which it is and why, in a line that strangers cannot
make long."""

from collections.abc import Callable
from typing import Any

import pytest
from testchannel import AGE, CHAINCODE, CHANNEL, results_of, writes

from chaincode_support.ledger.simulator import Simulator
from selvedge_common.protoutil.transactions import open_transaction
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2 as kv

Line = dict[str, Any]
AGAIN = "propose the transaction again."


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Line]]:
    """Gives the lines on rejected transactions so far."""

    def said() -> list[Line]:
        messages: list[Any] = [record.msg for record in caplog.records]
        return [line for line in messages if line["event"] == "transaction rejected"]

    return said


def read_and_write(simulator: Simulator) -> None:
    simulator.get_state(CHAINCODE, "a")
    simulator.put_state(CHAINCODE, "a", b"mine")


def scan_and_write(simulator: Simulator) -> None:
    assert list(simulator.range(CHAINCODE, "a", "m"))
    simulator.put_state(CHAINCODE, "result", b"x")


def line_of(envelope: bytes, block: int, position: int, code: str, reason: str) -> Line:
    return {
        "event": "transaction rejected",
        "level": "warning",
        "logger": "committer.validation",
        "channel": CHANNEL,
        "block": block,
        "position": position,
        "txid": open_transaction(envelope).txid,
        "code": code,
        "reason": reason,
    }


async def test_a_conflict_names_the_key_and_who_wrote_it(
    chain: Any, lines: Callable[[], list[Line]]
) -> None:
    absent = chain.simulate(read_and_write)
    await chain.add(chain.network.transaction(writes(a=b"1", b=b"2"))[1])
    first, second, third = (chain.simulate(read_and_write) for _ in range(3))
    scan = chain.simulate(scan_and_write)
    await chain.add(absent, first, second)
    await chain.add(third, scan, chain.network.transaction(writes(a=b""))[1])
    key = "The key 'a' of the chaincode 'basic' was read as"
    written = "of block 1, transaction 0"
    conflict = "MVCC_READ_CONFLICT"
    range_ = "The keys from 'a' to 'm' of the chaincode 'basic' are not those that were read"
    assert lines() == [
        line_of(absent, 2, 0, conflict, f"{key} missing and is {written} now: {AGAIN}"),
        line_of(
            second, 2, 2, conflict, f"{key} {written} and was changed earlier in the block: {AGAIN}"
        ),
        line_of(
            third, 3, 0, conflict, f"{key} {written} and is of block 2, transaction 1 now: {AGAIN}"
        ),
        line_of(scan, 3, 1, "PHANTOM_READ_CONFLICT", f"{range_}: {AGAIN}"),
    ]


async def test_a_key_that_is_gone_is_missing(chain: Any, lines: Callable[[], list[Line]]) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1"))[1])
    stale = chain.simulate(read_and_write)
    await chain.add(chain.network.transaction(writes(a=b""))[1])
    await chain.add(stale)
    (line,) = lines()
    assert "was read as of block 1, transaction 0 and is missing now" in line["reason"]


async def test_a_duplicate_names_the_block_of_the_first(
    chain: Any, lines: Callable[[], list[Line]]
) -> None:
    envelope = chain.network.transaction()[1]
    await chain.add(envelope, envelope)
    await chain.add(envelope)
    reason = "Block 1 has a transaction with this id already."
    assert lines() == [
        line_of(envelope, 1, 1, "DUPLICATE_TXID", reason),
        line_of(envelope, 2, 0, "DUPLICATE_TXID", reason),
    ]


HOSTILE = "\x00\x1b[2J\r\nlevel=critical" + "x" * 1_000_000


@pytest.mark.parametrize(
    ("code", "read"),
    [
        ("MVCC_READ_CONFLICT", kv.KVRWSet(reads=[kv.KVRead(key=HOSTILE, version=kv.Version())])),
        (
            "PHANTOM_READ_CONFLICT",
            kv.KVRWSet(
                range_queries_info=[
                    kv.RangeQueryInfo(
                        start_key=HOSTILE,
                        end_key=HOSTILE,
                        raw_reads=kv.QueryReads(kv_reads=[kv.KVRead(key=HOSTILE)]),
                    )
                ]
            ),
        ),
    ],
)
async def test_a_hostile_key_does_not_make_a_hostile_line(
    chain: Any, lines: Callable[[], list[Line]], code: str, read: kv.KVRWSet
) -> None:
    envelope = chain.network.transaction(results_of({HOSTILE: read}))[1]
    assert await chain.add(envelope) == [code]
    (line,) = lines()
    assert len(line["reason"]) <= 500
    assert line["reason"].isprintable()
    assert r"\x00\x1b[2J\r\nlevel" in line["reason"]


async def test_a_certificate_that_began_too_early_says_so(
    chain: Any, lines: Callable[[], list[Line]]
) -> None:
    """It was not valid when it began, since that of its authority was not."""
    old = chain.network.organisation.issue("client", "old", age=2 * AGE)
    envelope = chain.network.endorse(chain.network.propose(b"x", client=old), b"")
    assert await chain.add(envelope.SerializeToString()) == ["BAD_CREATOR_SIGNATURE"]
    (line,) = lines()
    assert "or one that issued it, is only valid from" in line["reason"]
