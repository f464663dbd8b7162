"""Reading blocks for Deliver: in threads, several at a time, and not those that are in memory."""

import asyncio
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import closing
from pathlib import Path

import pytest
from testchannel import CHANNEL, Network, Service, writes
from volumes import BLOCKS, SETTINGS, fill, order

from chaincode_support.deliver import BlockReader
from chaincode_support.ledger import Ledger
from selvedge_common.protoutil.errors import BlockUnavailable
from selvedge_protos.common import common_pb2


@pytest.fixture
async def ledger(tmp_path: Path, network: Network) -> AsyncIterator[Ledger]:
    async with Service(network, tmp_path, SETTINGS) as service:
        await fill(service)
    with closing(Ledger.open(tmp_path / "ledger", CHANNEL)) as ledger:
        yield ledger


@pytest.fixture
async def reader(ledger: Ledger) -> AsyncIterator[BlockReader]:
    reader = BlockReader(CHANNEL, ledger, ledger.blocks, ledger.held)
    yield reader
    await reader.close()


async def test_a_read_gives_blocks_until_they_are_enough(
    ledger: Ledger, reader: BlockReader
) -> None:
    stored = [ledger.block(number) for number in range(BLOCKS)]
    assert await reader.read(0, BLOCKS - 1, 1 << 30, bytes) == stored
    assert await reader.read(2, 3, 1 << 30, bytes) == stored[2:4]
    assert await reader.read(2, BLOCKS - 1, 0, bytes) == stored[2:3]
    two = len(stored[0]) + len(stored[1])
    assert await reader.read(0, BLOCKS - 1, two, bytes) == stored[:2]
    assert await reader.read(0, BLOCKS - 1, two + 1, bytes) == stored[:3]


async def test_a_disk_that_takes_its_time_holds_up_nobody(ledger: Ledger) -> None:
    given = threading.Event()

    def slowly(*which: int) -> Generator[bytes, None, None]:
        assert given.wait(10)
        yield from ledger.blocks(*which)

    reader = BlockReader(CHANNEL, ledger, slowly)
    reading = asyncio.create_task(reader.read(0, 0, 0, bytes))
    await asyncio.sleep(0)
    given.set()  # by the event loop, which would not come to this if it were held up
    assert await reading == [ledger.block(0)]
    await reader.close()


async def test_memory_that_is_short_may_be_there_later(ledger: Ledger, reader: BlockReader) -> None:
    def make(_: bytes) -> bytes:
        raise MemoryError

    with pytest.raises(BlockUnavailable, match=r"Block 1 .* no memory left for it") as told:
        await reader.read(1, 1, 0, make)
    assert told.value.status == common_pb2.SERVICE_UNAVAILABLE
    assert ledger.damage is None


async def test_the_newest_block_is_in_memory_once_it_was_committed(
    tmp_path: Path, network: Network, ledger: Ledger
) -> None:
    assert ledger.held(BLOCKS - 1) is None
    ledger.close()
    async with Service(network, tmp_path, SETTINGS) as service:
        await order(service, network.transaction(writes(a=b"1"))[1])
        assert service.ledger.held(BLOCKS) == service.ledger.block(BLOCKS)
        assert service.ledger.held(BLOCKS - 1) is None
