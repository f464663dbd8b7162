"""Trouble while committing: what may pass is waited out, what cannot stops it; both are told."""

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from testchannel import CHANNEL, Network, Service, fill_disk, make_room, writes

from chaincode_support.ledger import committer as committing
from chaincode_support.ledger.committer import CommitterFailing, CommitterStopped
from chaincode_support.ordering import (
    BatchSize,
    CommittingStopped,
    LedgerBehind,
    LogUnreadable,
    OrderingSettings,
)

SETTINGS = OrderingSettings(BatchSize(1, 1 << 20), 0.001, 100, 1 << 24)
LIMIT = 3


@pytest.fixture
async def service(
    tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Service]:
    monkeypatch.setattr(committing, "pauses", lambda: itertools.repeat(0.005))
    async with Service(network, tmp_path, SETTINGS, blocks_ahead=LIMIT) as running:
        async with asyncio.timeout(10):
            await running.ledger.wait_for(1)
        # A lock is given up at once, and attempts can be counted.
        running.ledger._writer.execute("PRAGMA busy_timeout = 0")
        yield running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def order(service: Service) -> None:
    await service.ordering.order(service.network.transaction(writes(a=bytes(50_000)))[1])


def attempts(service: Service) -> list[str]:
    """Fills with the attempts to commit from now on."""
    begun: list[str] = []

    def trace(statement: str) -> None:
        if statement.startswith("BEGIN"):
            begun.append(statement)

    service.ledger._writer.set_trace_callback(trace)
    return begun


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if event in record.getMessage()]


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"channel": CHANNEL})


@dataclass
class Lock:
    """A lock that somebody else holds on the ledger's file."""

    file: Path

    def begin(self, _: sqlite3.Connection) -> None:
        self._other = sqlite3.connect(self.file, isolation_level=None)
        self._other.execute("BEGIN IMMEDIATE")

    def end(self, _: sqlite3.Connection) -> None:
        self._other.close()


@pytest.mark.parametrize("kind", ["full", "locked"])
async def test_a_block_is_tried_again_until_it_goes_through(
    service: Service, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lock = Lock(service.ledger.file)
    begin, end = (fill_disk, make_room) if kind == "full" else (lock.begin, lock.end)
    writer = service.ledger._writer
    begin(writer)
    begun = attempts(service)
    await order(service)
    await until(lambda: len(begun) >= 5)
    with pytest.raises(CommitterFailing, match=rf"Block 1 .*{kind}.* tried again until it succeed"):
        service.committer.check_health()
    assert (gauge("ledger_commit_failing"), gauge("ledger_blocks_behind")) == (1, 1)
    # One line for the kind of trouble, not for every attempt.
    assert len(told(caplog, "committing fails and is tried again")) == 1
    assert not told(caplog, "committing stopped")
    end(writer)
    async with asyncio.timeout(10):
        await service.ledger.wait_for(2)
    await until(lambda: bool(told(caplog, "committing goes on")))
    service.committer.check_health()
    service.committer.check_committing()
    assert (gauge("ledger_commit_failing"), gauge("ledger_blocks_behind")) == (0, 0)
    await order(service)
    async with asyncio.timeout(10):
        await service.ledger.wait_for(3)


async def test_an_unreadable_log_is_read_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failures = service.ordering.block, iter([LogUnreadable("no luck"), LogUnreadable("none")])

    def block(number: int) -> bytes:
        for failure in failures:
            raise failure
        return read(number)

    monkeypatch.setattr(service.ordering, "block", block)
    await order(service)
    async with asyncio.timeout(10):
        await service.ledger.wait_for(2)
    assert next(failures, None) is None


async def test_ordering_may_not_run_away_from_a_ledger_in_trouble(service: Service) -> None:
    fill_disk(service.ledger._writer)
    for _ in range(LIMIT):
        service.committer.check_committing()
        await order(service)
    with pytest.raises(
        LedgerBehind, match=r"3 blocks behind .* orderer\.limits\.blocksAhead \(3\)"
    ):
        service.committer.check_committing()
    make_room(service.ledger._writer)
    async with asyncio.timeout(10):
        await service.ledger.wait_for(1 + LIMIT)
    service.committer.check_committing()


async def test_nor_by_few_large_blocks(
    tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "pauses", lambda: itertools.repeat(0.005))
    async with Service(network, tmp_path, SETTINGS, bytes_ahead=100_000) as service:
        async with asyncio.timeout(10):
            await service.ledger.wait_for(1)
        fill_disk(service.ledger._writer)
        for _ in range(2):  # 50 KB each
            service.committer.check_committing()
            await order(service)
        behind = sum(len(service.ordering.block(number)) for number in (1, 2))
        assert gauge("ledger_bytes_behind") == behind > 100_000
        with pytest.raises(
            LedgerBehind,
            match=rf"{behind} bytes behind .* orderer\.limits\.bytesAhead \(100000\)",
        ):
            service.committer.check_committing()
        make_room(service.ledger._writer)
        await until(lambda: gauge("ledger_bytes_behind") == 0)
        service.committer.check_committing()


async def test_what_was_left_from_before_the_start_counts_as_blocks_alone(
    tmp_path: Path, network: Network
) -> None:
    """Nothing is served until it is committed, and to measure it would take as long."""
    async with Service(network, tmp_path, SETTINGS) as before:
        await order(before)
    for file in (tmp_path / "ledger").iterdir():
        file.unlink()
    async with Service(network, tmp_path, SETTINGS, bytes_ahead=100_000) as service:
        assert (gauge("ledger_blocks_behind"), gauge("ledger_bytes_behind")) == (2, 0)
        async with asyncio.timeout(10):
            await service.ledger.wait_for(2)
        await order(service)
        await until(lambda: gauge("ledger_blocks_behind") == 0)
        await until(lambda: gauge("ledger_bytes_behind") == 0)


async def test_what_cannot_pass_stops_it_at_once(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    other = sqlite3.connect(service.ledger.file, isolation_level=None)
    other.execute("DROP TABLE history")
    other.close()
    begun = attempts(service)
    await order(service)
    await until(lambda: bool(told(caplog, "committing stopped")))
    assert len(begun) == 1
    assert gauge("ledger_commit_failing") == 1
    with pytest.raises(CommitterStopped, match=r"stopped at block 1: .*no such table: history"):
        service.committer.check_health()
    with pytest.raises(CommittingStopped) as refused:
        service.committer.check_committing()
    assert "committing stopped at block 1, so they would be ordered in vain" in str(refused.value)
    assert str(service.ledger.file) not in str(refused.value)


def test_the_pause_between_attempts_doubles_up_to_five_seconds() -> None:
    assert list(itertools.islice(committing.pauses(), 8)) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
