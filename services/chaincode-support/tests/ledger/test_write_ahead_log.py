"""The write-ahead log stays bounded although somebody always reads."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from testchannel import CHANNEL, Network, writes

from chaincode_support.ledger import Ledger, metrics
from chaincode_support.ledger.write_ahead_log import WriteAheadLog

MAX_BYTES = 1 << 20
VALUE = bytes(range(256)) * 800  # 200 KB


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path, CHANNEL, max_wal_bytes=MAX_BYTES)
    yield ledger
    ledger.close()


def wal(ledger: Ledger) -> int:
    return ledger.file.with_name(f"{ledger.file.name}-wal").stat().st_size


def told() -> float | None:
    return REGISTRY.get_sample_value("ledger_wal_bytes", {"channel": CHANNEL})


async def grow(chain: Any) -> None:
    assert await chain.add(chain.network.transaction(writes(a=VALUE))[1]) == ["VALID"]


async def always_simulating(ledger: Ledger) -> None:
    """There is a simulation open at every moment, and none is open for long."""
    last = ledger.simulator("")
    try:
        while True:
            following = ledger.simulator("")
            await asyncio.sleep(0.002)
            last.close()
            last = following
    finally:
        last.close()
        following.close()


async def test_overlapping_simulations_do_not_make_it_grow(chain: Any) -> None:
    load = asyncio.create_task(always_simulating(chain.ledger))
    largest = 0
    for _ in range(40):  # 16 MB: each value is in its block too
        await grow(chain)
        largest = max(largest, wal(chain.ledger))
    assert not load.done()
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)
    assert largest < 3 * MAX_BYTES


async def test_a_long_simulation_keeps_its_snapshot_and_the_log_shrinks_after_it(
    chain: Any, network: Network
) -> None:
    await grow(chain)
    long = chain.ledger.simulator("")
    for n in range(6):
        results = writes(a=b"%d" % n, b=VALUE)
        assert await chain.add(network.transaction(results)[1]) == ["VALID"]
    assert wal(chain.ledger) > MAX_BYTES
    assert long.get_state("basic", "a") == VALUE
    long.close()
    chain.ledger._wal._not_before = 0.0
    await grow(chain)
    # Another commit is done after the writer has trimmed behind the first.
    await grow(chain)
    assert wal(chain.ledger) < MAX_BYTES
    chain.ledger.close()
    assert told() is not None


def test_trouble_with_the_disk_is_waited_out(ledger: Ledger) -> None:
    """What is in the log is durable: not being able to empty it harms nobody yet."""
    size = metrics.wal_bytes.labels(CHANNEL)
    log = WriteAheadLog(ledger.file, CHANNEL, ledger._writer, 0, size)
    ledger._writer.execute("BEGIN IMMEDIATE")
    ledger._writer.execute("DELETE FROM tx")
    log.trim()  # SQLite cannot checkpoint inside a transaction
    ledger._writer.execute("ROLLBACK")
    assert told() == wal(ledger) > 0
    log._not_before = 0.0
    log.trim()
    assert told() == wal(ledger) == 0
