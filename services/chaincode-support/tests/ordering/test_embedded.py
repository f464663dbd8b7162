"""The embedded ordering: cut, chained, signed, durable before anybody is told."""

import asyncio
import itertools
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from testchannel import CHANNEL, fill_disk, make_room

from chaincode_support import config
from chaincode_support.genesis import open_ordering as open_ordering_of
from chaincode_support.ledger import store
from chaincode_support.material import Material
from chaincode_support.ordering import (
    BatchSize,
    LogUnreadable,
    LogUnusable,
    OrderingClosed,
    OrderingFailed,
    OrderingFull,
    log,
)
from selvedge_common.msp import ORDERER
from selvedge_common.msp.policies import evaluate, signed_by_role
from selvedge_common.protoutil import blocks, metadata


def stored_blocks(folder: Path) -> int:
    """How many blocks another process would find in the log now."""
    connection = sqlite3.connect(folder / "ordering" / f"{CHANNEL}.sqlite")
    try:
        return int(connection.execute("SELECT count(*) FROM block").fetchone()[0])
    finally:
        connection.close()


async def test_a_lone_envelope_goes_when_its_time_is_up(open_ordering: Any, clock: Any) -> None:
    ordering = await open_ordering(clock, timeout=0.25)
    durable = ordering.order(b"one")
    assert clock.armed() == [0.25]
    clock.strike()
    async with asyncio.timeout(10):
        assert await durable == 1
    assert clock.armed() == []
    assert list(blocks.parse_block(ordering.block(1)).data.data) == [b"one"]


async def test_a_full_block_does_not_wait(open_ordering: Any, clock: Any) -> None:
    ordering = await open_ordering(clock, batch=BatchSize(2, 1000))
    waiting = [ordering.order(name) for name in (b"a", b"b", b"c")]
    async with asyncio.timeout(10):
        assert await asyncio.gather(*waiting[:2]) == [1, 1]
    assert not waiting[2].done()
    assert len(clock.armed()) == 1
    clock.strike()
    async with asyncio.timeout(10):
        assert await waiting[2] == 2


async def test_what_begins_the_next_block_gets_the_whole_time(
    open_ordering: Any, clock: Any
) -> None:
    ordering = await open_ordering(clock, batch=BatchSize(10, 10))
    first = ordering.order(b"123456")
    (before,) = [timer for _, timer in clock.timers]
    second = ordering.order(b"123456")
    assert before.cancelled()
    assert len(clock.armed()) == 1
    clock.strike()
    async with asyncio.timeout(10):
        assert (await first, await second) == (1, 2)


async def test_it_is_durable_before_anybody_is_told(open_ordering: Any, tmp_path: Path) -> None:
    ordering = await open_ordering()
    for _ in range(5):
        number = await ordering.order(b"x")
        assert stored_blocks(tmp_path) > number


async def test_the_log_survives_a_power_cut_whatever_the_ledger_is_allowed_to_lose(
    network: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("CORE_LEDGER_SYNCHRONOUS", "NORMAL")
    monkeypatch.setenv("CORE_PEER_FILESYSTEMPATH", str(tmp_path))
    for folder in ("msp", "orderer-msp"):
        network.organisation.issue("orderer", "orderer0", folder=tmp_path / folder)
        roots = tmp_path / folder / "cacerts"
        roots.mkdir()
        (roots / "ca.pem").write_bytes(network.organisation.root)
    opened: list[sqlite3.Connection] = []

    def connect(file: Path) -> sqlite3.Connection:
        opened.append(store.connect(file))
        return opened[-1]

    monkeypatch.setattr(log, "connect", connect)
    ordering = open_ordering_of("mychannel", config.read(), Material(tmp_path, "Org1MSP"))
    levels = [connection.execute("PRAGMA synchronous").fetchone()[0] for connection in opened]
    await ordering.close()
    assert set(levels) == {2}  # FULL


async def test_blocks_hang_together_and_are_signed_by_the_orderer(
    open_ordering: Any, network: Any
) -> None:
    ordering = await open_ordering()
    for n in range(3):
        await ordering.order(b"x%d" % n)
    found = [blocks.parse_block(ordering.block(number)) for number in range(4)]
    policy = signed_by_role(["Org1MSP"], [ORDERER])
    for block in found:
        evaluate(policy, blocks.block_signatures(block), network.msps)
        assert metadata.last_config(block) == 0
    for before, after in itertools.pairwise(found):
        assert after.header.previous_hash == blocks.header_hash(before.header)


async def test_a_full_queue_is_refused_until_there_is_room(open_ordering: Any, clock: Any) -> None:
    ordering = await open_ordering(clock, max_pending_messages=2, max_pending_bytes=100)
    waiting = [ordering.order(b"a"), ordering.order(b"b")]
    with pytest.raises(OrderingFull, match="2 transactions of 2 bytes wait to become durable"):
        ordering.order(b"c")
    clock.strike()
    await asyncio.gather(*waiting)
    with pytest.raises(OrderingFull):
        ordering.order(b"x" * 101)
    ordering.order(b"x" * 100)


async def test_it_goes_on_after_a_restart(open_ordering: Any) -> None:
    ordering = await open_ordering()
    await ordering.order(b"before")
    last = blocks.parse_block(ordering.block(1))
    await ordering.close()
    with pytest.raises(OrderingClosed):
        ordering.order(b"too late")
    again = await open_ordering()
    assert again.height == 2
    assert await again.order(b"after") == 2
    block = blocks.parse_block(again.block(2))
    assert block.header.previous_hash == blocks.header_hash(last.header)


async def test_closing_makes_durable_what_was_taken(open_ordering: Any, clock: Any) -> None:
    ordering = await open_ordering(clock)
    durable = ordering.order(b"taken")
    await ordering.close()
    async with asyncio.timeout(10):
        assert await durable == 1


async def test_a_block_that_cannot_be_written_fails_its_envelopes_only(
    open_ordering: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ordering = await open_ordering()
    fill_disk(ordering._log._writer)
    for _ in range(2):
        unlucky = ordering.order(bytes(50_000))
        with pytest.raises(OrderingFailed) as failed:
            await unlucky
        assert str(failed.value) == (
            f"The ordering log of channel {CHANNEL} could not be written: the transaction is not "
            "known to be ordered. Submit the same again later: it is valid once at most."
        )
    assert (
        f"Block 1 of channel {CHANNEL} could not be written to {ordering._log.file}: database or "
        "disk is full. Check the disk's room and health."
    ) in caplog.text
    assert stored_blocks(tmp_path) == 1
    make_room(ordering._log._writer)
    assert await ordering.order(b"lucky") == 1
    assert ordering.damage is None


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (sqlite3.SQLITE_FULL, "database or disk is full"),
        (sqlite3.SQLITE_IOERR, "disk I/O error"),
    ],
)
async def test_a_first_block_that_cannot_be_written_is_told_in_a_sentence(
    open_ordering: Any, monkeypatch: Any, code: int, what: str
) -> None:
    opened: list[sqlite3.Connection] = []

    class WithoutBlocks(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            if not statement.startswith("INSERT INTO block"):
                return super().execute(statement, *parameters)
            error = sqlite3.OperationalError(what)
            error.sqlite_errorcode = code
            raise error

    def connect(file: Path) -> sqlite3.Connection:
        opened.append(sqlite3.connect(file, isolation_level=None, factory=WithoutBlocks))
        return opened[-1]

    with monkeypatch.context() as failing:
        failing.setattr(log, "connect", connect)
        with pytest.raises(
            LogUnusable,
            match=rf"Block 0 of channel .* {what}\. Check the disk's room and health\. Then start",
        ):
            await open_ordering()
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    assert (await open_ordering()).height == 1


class FailingDisk:
    """A connection to a file that the disk does not give."""

    def execute(self, *_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error


async def test_a_log_that_cannot_be_read_says_whether_that_may_pass(
    open_ordering: Any, tmp_path: Path
) -> None:
    ordering = await open_ordering()
    idle = ordering._log._readers._idle
    idle.append(FailingDisk())
    with pytest.raises(LogUnreadable, match=r"Block 0 could not be read .* Check the disk"):
        ordering.block(0)
    idle.pop()
    other = sqlite3.connect(tmp_path / "ordering" / f"{CHANNEL}.sqlite", isolation_level=None)
    other.execute("ALTER TABLE block RENAME TO gone")
    other.close()
    with pytest.raises(LogUnusable, match=r"no such table: block.* `selvedge ledger rebuild`"):
        ordering.block(0)


async def test_followers_get_every_block_as_it_comes(open_ordering: Any) -> None:
    ordering = await open_ordering()
    for n in range(3):
        waiting = asyncio.ensure_future(ordering.wait_for(n + 2))
        before = ordering.ordered_bytes
        await ordering.order(b"x%d" % n)
        async with asyncio.timeout(10):
            await waiting
        assert blocks.parse_block(ordering.block(n + 1)).header.number == n + 1
        assert ordering.ordered_bytes - before == len(ordering.block(n + 1))
    with pytest.raises(KeyError):
        ordering.block(4)


async def test_a_damaged_log_is_named(open_ordering: Any, tmp_path: Path) -> None:
    (tmp_path / "ordering").mkdir()
    (tmp_path / "ordering" / f"{CHANNEL}.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(LogUnusable, match="`selvedge ledger rebuild`"):
        await open_ordering()
