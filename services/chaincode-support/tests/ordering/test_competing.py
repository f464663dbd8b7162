"""Orderings that append to the same log: each place is taken once, and the others cut again."""

import asyncio
import itertools
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from testchannel import CHANNEL, Network

from chaincode_support.ordering import (
    BatchSize,
    EmbeddedOrdering,
    OrderingFailed,
    OrderingSettings,
    PositionTaken,
    SqliteLog,
    Tip,
)
from selvedge_common.msp import ORDERER
from selvedge_common.msp.policies import evaluate, signed_by_role
from selvedge_common.protoutil import blocks
from selvedge_protos.common import common_pb2

SETTINGS = OrderingSettings(BatchSize(3, 1 << 20), 0.001, 1000, 1 << 24)
CLIENTS = 6
ENVELOPES = 40


class CountingLog(SqliteLog):
    """A log that counts the places it came too late for."""

    too_late = 0

    def append(self, block: common_pb2.Block) -> None:
        try:
            super().append(block)
        except PositionTaken:
            self.too_late += 1
            raise


def open_log(folder: Path) -> CountingLog:
    return CountingLog.open(folder, CHANNEL)


Compete = Callable[..., Awaitable[list[EmbeddedOrdering]]]


@pytest.fixture
async def compete(network: Network) -> AsyncIterator[Compete]:
    """Opens an ordering into each log, with a key of its own."""
    opened: list[EmbeddedOrdering] = []

    async def open_all(*logs: SqliteLog) -> list[EmbeddedOrdering]:
        for log in logs:
            signer = network.organisation.issue("orderer", f"orderer{len(opened)}")
            opened.append(EmbeddedOrdering.open(log, CHANNEL, signer, SETTINGS, network.genesis))
        return opened[-len(logs) :]

    yield open_all
    for ordering in opened:
        await ordering.close()


def chain_in(folder: Path) -> list[common_pb2.Block]:
    """The blocks as another process finds them."""
    with closing(sqlite3.connect(folder / f"{CHANNEL}.sqlite")) as connection:
        rows = connection.execute("SELECT number, bytes FROM block ORDER BY number").fetchall()
    assert [number for number, _ in rows] == list(range(len(rows)))
    return [blocks.parse_block(marshalled) for _, marshalled in rows]


def check_whole(chain: Sequence[common_pb2.Block], network: Network) -> None:
    policy = signed_by_role(["Org1MSP"], [ORDERER])
    for block in chain:
        assert block.header.data_hash == blocks.data_hash(block.data.data)
        evaluate(policy, blocks.block_signatures(block), network.msps)
    for before, block in itertools.pairwise(chain):
        assert block.header.number == before.header.number + 1
        assert block.header.previous_hash == blocks.header_hash(before.header)


async def test_racing_orderings_lose_nothing_and_order_nothing_twice(
    compete: Compete, network: Network, tmp_path: Path
) -> None:
    logs = [open_log(tmp_path), open_log(tmp_path)]
    orderings = await compete(*logs)
    acknowledged: dict[bytes, int] = {}

    async def submit(ordering: EmbeddedOrdering, client: str) -> None:
        for n in range(ENVELOPES):
            envelope = f"{client}, {n}".encode()
            number = await ordering.order(envelope)
            # Durable, for whoever looks, at the moment of its SUCCESS.
            assert envelope in chain_in(tmp_path)[number].data.data
            acknowledged[envelope] = number

    async with asyncio.timeout(60), asyncio.TaskGroup() as clients:
        for which, ordering in enumerate(orderings):
            for client in range(CLIENTS):
                clients.create_task(submit(ordering, f"ordering {which}, client {client}"))
    assert all(log.too_late for log in logs), "they did not race"
    chain = chain_in(tmp_path)
    check_whole(chain, network)
    found = Counter(envelope for block in chain[1:] for envelope in block.data.data)
    assert found == Counter(acknowledged.keys())
    assert len(found) == 2 * CLIENTS * ENVELOPES
    for envelope, number in acknowledged.items():
        assert envelope in chain[number].data.data
    # Both know all of it, whoever appended it, once they have come to its end.
    for ordering in orderings:
        await ordering.order(b"last")
    chain = chain_in(tmp_path)
    assert orderings[1].height == len(chain)
    for ordering in orderings:
        for number in range(len(chain)):
            assert blocks.parse_block(ordering.block(number)) == chain[number]


async def test_an_ordering_that_comes_too_late_goes_on_from_the_others_blocks(
    compete: Compete, network: Network, tmp_path: Path
) -> None:
    early = open_log(tmp_path)
    (first,) = await compete(early)
    late = open_log(tmp_path)
    (second,) = await compete(late)
    for n in range(3):
        assert await first.order(b"%d" % n) == n + 1
    following = asyncio.ensure_future(second.wait_for(5))
    assert await second.order(b"late") == 4
    async with asyncio.timeout(10):
        await following
    assert (early.too_late, late.too_late) == (0, 1)
    chain = chain_in(tmp_path)
    check_whole(chain, network)
    assert [list(block.data.data) for block in chain[1:]] == [[b"0"], [b"1"], [b"2"], [b"late"]]
    assert second.ordered_bytes == sum(len(second.block(number)) for number in range(1, 5))


async def test_of_two_first_blocks_one_counts(
    compete: Compete, network: Network, tmp_path: Path
) -> None:
    # Both are opened before either has a block, so that both make one.
    logs = [open_log(tmp_path), open_log(tmp_path)]
    first, second = await compete(*logs)
    assert logs[1].too_late == 1
    assert first.block(0) == second.block(0)
    assert (await first.order(b"a"), await second.order(b"b")) == (1, 2)
    check_whole(chain_in(tmp_path), network)


@pytest.mark.parametrize("first", ["append", "follow"])
async def test_a_block_that_comes_while_an_ordering_is_opened_counts_once(
    compete: Compete, tmp_path: Path, first: str
) -> None:
    class Between(SqliteLog):
        def follow(self, advanced: Callable[[int, int], object]) -> None:
            if first == "follow":
                super().follow(advanced)
            self.append(blocks.new_block(1, self.tip.last_hash, [b"between"]))
            if first == "append":
                super().follow(advanced)

    (ordering,) = await compete(Between.open(tmp_path, CHANNEL))
    assert ordering.height == 2
    assert await ordering.order(b"next") == 2
    async with asyncio.timeout(10):
        await ordering.wait_for(3)
    assert ordering.ordered_bytes == len(ordering.block(2))


async def test_a_log_that_shows_no_block_where_it_has_one_is_not_asked_for_ever(
    compete: Compete, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(SqliteLog):
        def append(self, block: common_pb2.Block) -> None:
            if block.header.number:
                raise PositionTaken("The log has another block 1.")
            super().append(block)

    (ordering,) = await compete(Stuck.open(tmp_path, CHANNEL))
    with pytest.raises(OrderingFailed, match="is not known to be ordered"):
        async with asyncio.timeout(10):
            await ordering.order(b"x")
    assert "The log has another block 1. It shows no block there." in caplog.text


def test_a_place_that_is_taken_stays_as_it_is(tmp_path: Path) -> None:
    early, late = open_log(tmp_path), open_log(tmp_path)
    told: list[tuple[int, int]] = []
    late.follow(lambda height, size: told.append((height, size)))
    mine, other = (blocks.new_block(0, b"", [envelope]) for envelope in (b"mine", b"other"))
    early.append(mine)
    with pytest.raises(PositionTaken, match="has another block 0"):
        late.append(other)
    assert late.block(0) == mine.SerializeToString()
    assert late.tip == early.tip == Tip(1, blocks.header_hash(mine.header))
    assert told == [(1, mine.ByteSize())]
    late.append(blocks.new_block(1, late.tip.last_hash, [b"next"]))
    assert [height for height, _ in told] == [1, 2]
    early.close()
    late.close()
