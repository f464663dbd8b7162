"""Blocks that cannot be delivered: a status for the client, a line and a health for operators."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from testchannel import CHANNEL, Network, Service, writes
from volumes import BLOCKS, PAGE, SETTINGS, changing, damage_page, failing_disk, fill, pages

from chaincode_support.ledger.committer import CommitterStopped
from chaincode_support.ordering import LogDamaged
from selvedge_common.protoutil.seek_request import NEWEST, seek_envelope
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.orderer.ab_pb2_grpc import AtomicBroadcastStub
from selvedge_protos.peer.events_pb2_grpc import DeliverStub

# The block that has a large transaction.
BROKEN = 1
REST = [*range(BROKEN + 1, BLOCKS), "SUCCESS"]
FORMS = ("Deliver", "DeliverFiltered", "DeliverWithPrivateData")


@pytest.fixture
async def volume(tmp_path: Path, network: Network) -> Path:
    async with Service(network, tmp_path, SETTINGS) as service:
        await fill(service)
    return tmp_path


@pytest.fixture
async def service(volume: Path, network: Network) -> AsyncIterator[Service]:
    """Has read no block yet."""
    async with Service(network, volume, SETTINGS) as service:
        yield service


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(service.server.address) as channel:
        yield channel


async def answers(service: Service, method: Any, start: int) -> list[int | str]:
    """From a block to the newest one: the numbers of blocks, and the status."""
    request = seek_envelope(
        CHANNEL, start, NEWEST, ab_pb2.SeekInfo.BLOCK_UNTIL_READY, service.network.client
    )
    found: list[int | str] = []
    async with asyncio.timeout(10):
        async for response in method(iter([request])):
            match response.WhichOneof("Type"):
                case "block":
                    found.append(response.block.header.number)
                case "filtered_block":
                    found.append(response.filtered_block.number)
                case "block_and_private_data":
                    found.append(response.block_and_private_data.block.header.number)
                case _:
                    found.append(common_pb2.Status.Name(response.status))
    return found


def change(statement: str) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        with changing(file) as connection:
            connection.execute(statement.format(BROKEN))

    return damage


def change_a_byte(file: Path) -> None:
    """As a disk may, in what a transaction wrote: the form of the block is left as it was."""
    with changing(file) as connection:
        query = "SELECT bytes FROM block WHERE number = ?"
        (block,) = connection.execute(query, (BROKEN,)).fetchone()
        place = len(block) // 2
        changed = block[:place] + bytes([block[place] ^ 1]) + block[place + 1 :]
        update = "UPDATE block SET bytes = ? WHERE number = ?"
        connection.execute(update, (changed, BROKEN))


def damage_its_page(file: Path) -> None:
    """Overwrite the page before the last one that the block takes: it names the last one."""
    with changing(file) as connection:
        (block,) = connection.execute(f"SELECT bytes FROM block WHERE number = {BROKEN}").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = file.read_bytes()
    last = 1 + content.index(block[-200:-100]) // PAGE
    [before] = [
        page
        for page in pages(file)
        if content[page * PAGE : page * PAGE + 4] == last.to_bytes(4, "big")
    ]
    damage_page(file, before, b"\xa5" * PAGE)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (damage_its_page, "database disk image is malformed"),
        (change("DELETE FROM block WHERE number = {}"), "block 1 is not in it"),
        (
            change("UPDATE block SET bytes = x'ff' WHERE number = {}"),
            "block 1: The block is not a",
        ),
        (
            change(
                "UPDATE block SET bytes = (SELECT bytes FROM block WHERE number = 2) "
                "WHERE number = {}"
            ),
            "block 1: It says that it is block 2",
        ),
        (change_a_byte, "block 1: Its data do not fit the hash in its header"),
    ],
)
async def test_a_damaged_block_is_told_of_and_stops_the_channel_but_for_its_other_blocks(
    service: Service,
    channel: grpc.aio.Channel,
    damage: Callable[[Path], None],
    found: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger, stub = service.ledger, DeliverStub(channel)
    damage(ledger.file)
    for form in FORMS:
        method = getattr(stub, form)
        assert await answers(service, method, BROKEN - 1) == [BROKEN - 1, "INTERNAL_SERVER_ERROR"]
        assert await answers(service, method, BROKEN + 1) == REST
    assert ledger.damage is not None
    assert f"The ledger file {ledger.file} of channel {CHANNEL} is damaged: {found}" in (
        ledger.damage
    )
    assert "`selvedge ledger rebuild`" in ledger.damage
    messages = [record.getMessage() for record in caplog.records]
    assert sum("ledger damaged" in message for message in messages) == 1
    refused = [message for message in messages if "deliver refused" in message]
    assert len(refused) == len(FORMS)
    assert f"Block {BROKEN} of channel {CHANNEL} cannot be delivered: " in refused[0]
    # Nothing is committed on it.
    await service.ordering.order(service.network.transaction(writes(a=b"9"))[1])
    async with asyncio.timeout(10):
        with pytest.raises(CommitterStopped, match=rf"{ledger.file} of channel .* is damaged"):
            await service.committing


async def test_a_block_that_cannot_be_read_now_may_be_asked_for_again(
    service: Service, channel: grpc.aio.Channel
) -> None:
    deliver = DeliverStub(channel).Deliver
    with failing_disk(service.ledger):
        assert await answers(service, deliver, BROKEN) == ["SERVICE_UNAVAILABLE"]
    assert service.ledger.damage is None
    assert await answers(service, deliver, BROKEN) == [BROKEN, *REST]


@pytest.mark.parametrize(
    "damage",
    [
        change("DELETE FROM block WHERE number = {}"),
        change("UPDATE block SET bytes = x'ff' WHERE number = {}"),
        change_a_byte,
    ],
)
async def test_a_damaged_block_of_the_ordering_log_stops_the_channel(
    service: Service, channel: grpc.aio.Channel, volume: Path, damage: Callable[[Path], None]
) -> None:
    deliver = AtomicBroadcastStub(channel).Deliver
    file = volume / "ordering" / f"{CHANNEL}.sqlite"
    damage(file)
    assert await answers(service, deliver, BROKEN - 1) == [BROKEN - 1, "INTERNAL_SERVER_ERROR"]
    assert await answers(service, deliver, BROKEN + 1) == REST
    assert service.ordering.damage is not None
    assert str(file) in service.ordering.damage
    with pytest.raises(LogDamaged, match="its ordering log is damaged"):
        service.ordering.order(b"x")
    # The ledger has the block.
    assert await answers(service, DeliverStub(channel).Deliver, BROKEN) == [BROKEN, *REST]
