"""Damage that a running ledger or ordering comes upon: named for operators, the channel stops."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from testchannel import CHAINCODE, CHANNEL, Network, Service, writes
from volumes import PAGE, SETTINGS, changing, damage_page, failing_disk, fill, order

from chaincode_support.ledger import Ledger, LedgerClosed, LedgerUnusable, ReadFailed
from chaincode_support.ledger.committer import CommitterStopped
from chaincode_support.ledger.simulator import Simulator
from chaincode_support.ordering import (
    CommittingStopped,
    LogDamaged,
    LogUnusable,
    OrderingFailed,
)

GARBAGE = b"\xa5" * PAGE


@pytest.fixture
async def volume(network: Network, tmp_path: Path) -> Path:
    async with Service(network, tmp_path, SETTINGS) as service:
        await fill(service)
    return tmp_path


def damage_table(file: Path, table: str) -> None:
    """Overwrite the first page of a table or an index."""
    with changing(file) as connection:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        (root,) = connection.execute(query, (table,)).fetchone()
    damage_page(file, root - 1, GARBAGE)


@pytest.fixture
def damaged(volume: Path) -> Iterator[Callable[[str], Ledger]]:
    """Opens the ledger with a damaged table."""
    opened: list[Ledger] = []

    def open_damaged(table: str) -> Ledger:
        damage_table(volume / "ledger" / f"{CHANNEL}.sqlite", table)
        opened.append(Ledger.open(volume / "ledger", CHANNEL))
        return opened[-1]

    yield open_damaged
    for ledger in opened:
        ledger.close()


@pytest.mark.parametrize(
    ("table", "read"),
    [
        ("state", lambda simulator: simulator.get_state(CHAINCODE, "a")),
        ("state", lambda simulator: simulator.get_metadata(CHAINCODE, "a")),
        ("state", lambda simulator: list(simulator.range(CHAINCODE, "", ""))),
        ("state", lambda simulator: simulator.range_page(CHAINCODE, "", "", 1, "").bookmark),
        ("history", lambda simulator: list(simulator.history(CHAINCODE, "a"))),
    ],
)
def test_a_simulation_that_meets_it_says_so_and_is_the_last_one(
    damaged: Callable[[str], Ledger],
    table: str,
    read: Callable[[Simulator], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = damaged(table)
    assert ledger.damage is None
    with closing(ledger.simulator("")) as simulator, pytest.raises(LedgerUnusable) as told:
        read(simulator)
    # A client learns what it needs, an operator where to look and what to do.
    assert str(told.value) == (
        f"The ledger of channel {CHANNEL} is damaged: have the peer's log read, and the ledger "
        "rebuilt."
    )
    assert ledger.damage is not None
    assert str(ledger.file) in ledger.damage
    assert "malformed" in ledger.damage
    assert "`selvedge ledger rebuild`" in ledger.damage
    assert sum("ledger damaged" in record.getMessage() for record in caplog.records) == 1
    with pytest.raises(LedgerUnusable, match="is damaged: have the peer's log read"):
        ledger.simulator("")


@pytest.mark.parametrize(
    ("table", "read"),
    [
        ("tx", lambda ledger: ledger.has_transaction("x")),
        ("tx", lambda ledger: ledger.transaction("x")),
        ("tx", lambda ledger: ledger.block_by_txid("x")),
        ("block_hash", lambda ledger: ledger.block_by_hash(ledger.last_hash)),
    ],
)
def test_a_look_up_that_meets_it_says_so_and_blocks_are_still_read(
    damaged: Callable[[str], Ledger], table: str, read: Callable[[Ledger], object]
) -> None:
    ledger = damaged(table)
    with pytest.raises(LedgerUnusable, match="is damaged: have the peer's log read"):
        read(ledger)
    assert ledger.damage is not None
    assert all(ledger.block(number) for number in range(ledger.height))


@pytest.mark.parametrize(
    "read", [lambda ledger: ledger.block(3), lambda ledger: [*ledger.blocks(3, 5, 1 << 30)]]
)
def test_a_block_that_is_gone_is_damage(volume: Path, read: Callable[[Ledger], object]) -> None:
    file = volume / "ledger" / f"{CHANNEL}.sqlite"
    with changing(file) as connection:
        connection.execute("DELETE FROM block WHERE number = 3")
    with closing(Ledger.open(volume / "ledger", CHANNEL)) as ledger:
        assert len([*ledger.blocks(0, 2, 1 << 30)]) == 3
        assert ledger.damage is None
        with pytest.raises(LedgerUnusable, match="is damaged: have the peer's log read"):
            read(ledger)
        assert ledger.damage is not None
        assert f"{file} of channel {CHANNEL} is damaged: block 3 is not in it." in ledger.damage


def test_a_transaction_in_what_is_no_block_is_damage(volume: Path) -> None:
    with closing(Ledger.open(volume / "ledger", CHANNEL)) as ledger:
        with changing(ledger.file) as connection:
            (txid,) = connection.execute("SELECT txid FROM tx WHERE block = 3").fetchone()
            connection.execute("UPDATE block SET bytes = x'ff' WHERE number = 3")
        with pytest.raises(LedgerUnusable):
            ledger.transaction(txid)
        assert ledger.damage is not None
        assert "block 3 in it is no block" in ledger.damage


async def test_nothing_is_committed_on_damage_that_a_reader_met(
    network: Network, damaged: Callable[[str], Ledger]
) -> None:
    ledger = damaged("history")
    with closing(ledger.simulator("")) as simulator, pytest.raises(LedgerUnusable):
        list(simulator.history(CHAINCODE, "a"))
    with pytest.raises(LedgerUnusable, match=rf"{ledger.file} of channel {CHANNEL} is damaged"):
        await ledger.commit(network.genesis(), [])


async def test_what_may_pass_is_no_damage(volume: Path) -> None:
    with closing(Ledger.open(volume / "ledger", CHANNEL)) as ledger:
        with failing_disk(ledger), pytest.raises(ReadFailed, match="be read now; try again"):
            ledger.block(0)
        assert ledger.damage is None
        assert ledger.block(0)


def test_a_closed_ledger_is_no_damaged_one(volume: Path) -> None:
    ledger = Ledger.open(volume / "ledger", CHANNEL)
    ledger.close()
    with pytest.raises(LedgerClosed, match="Cannot operate on a closed database"):
        ledger.block(0)
    assert ledger.damage is None


async def test_a_commit_that_meets_it_stops_the_channel(network: Network, volume: Path) -> None:
    damage_table(volume / "ledger" / f"{CHANNEL}.sqlite", "state")
    async with Service(network, volume, SETTINGS) as running:
        await running.ordering.order(network.transaction(writes(a=b"9"))[1])
        async with asyncio.timeout(10):
            with pytest.raises(CommitterStopped, match=rf"at block 6: .*{running.ledger.file}"):
                await running.committing
        with pytest.raises(CommittingStopped):
            running.committer.check_committing()
        assert running.ledger.damage is not None
        with pytest.raises(LedgerUnusable):
            running.ledger.simulator("")


async def test_an_ordering_log_that_cannot_be_read_takes_nothing_more(
    network: Network, volume: Path
) -> None:
    file = volume / "ordering" / f"{CHANNEL}.sqlite"
    async with Service(network, volume, SETTINGS) as running:
        assert running.ordering.damage is None
        with changing(file) as connection:
            connection.execute("ALTER TABLE block RENAME TO gone")
        with pytest.raises(LogUnusable, match=rf"{file}: no such table.*`selvedge ledger rebuild`"):
            running.ordering.block(1)
        with pytest.raises(LogDamaged, match="takes no transactions: its ordering log is damaged"):
            running.ordering.order(b"x")
        assert running.ordering.damage is not None
        assert str(file) in running.ordering.damage


async def test_an_ordering_log_that_cannot_be_written_takes_nothing_more(
    network: Network, volume: Path
) -> None:
    file = volume / "ordering" / f"{CHANNEL}.sqlite"
    async with Service(network, volume, SETTINGS) as running:
        await order(running, network.transaction(writes(a=b"1"))[1])
        with changing(file) as connection:
            connection.execute("ALTER TABLE block RENAME TO gone")
        sentence = "takes no transactions: its ordering log is damaged"
        with pytest.raises(OrderingFailed, match=sentence) as failed:
            await running.ordering.order(network.transaction(writes(a=b"2"))[1])
        with pytest.raises(LogDamaged, match=sentence) as refused:
            running.ordering.order(network.transaction(writes(a=b"3"))[1])
        assert str(file) not in f"{failed.value}{refused.value}"
        assert running.ordering.damage is not None
        assert f"{file}: no such table" in running.ordering.damage
        assert "`selvedge ledger rebuild`" in running.ordering.damage


@pytest.mark.parametrize("page", [0, 1, 2])
def test_a_file_that_cannot_be_opened_is_named(volume: Path, page: int) -> None:
    file = volume / "ledger" / f"{CHANNEL}.sqlite"
    damage_page(file, page, GARBAGE)
    with pytest.raises(LedgerUnusable, match=rf"{file} .*`selvedge ledger rebuild`"):
        Ledger.open(volume / "ledger", CHANNEL)
