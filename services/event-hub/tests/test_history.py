"""The past of a channel is read from the source again, for all who want it by one stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from deliver_peer import CHANNEL, Ledger, Peer
from eventhouse import eventually, sample
from organisation import MSPID, Organisation

from event_hub import config as configuration
from event_hub.channels.block import ChannelBlock
from event_hub.channels.past import PastBlocks
from event_hub.material import Material
from event_hub.processor import Publication
from event_hub.sources.addresses import Addresses
from event_hub.sources.configurations import Configurations
from event_hub.sources.connection import MAX_FIELDS
from event_hub.sources.feed import Feed
from event_hub.sources.history import History, HistoryConfig
from event_hub.sources.trust import Trust
from selvedge_common.comm import MessageStream
from selvedge_common.protoutil import blocks, metadata
from selvedge_common.protoutil.errors import BlockUnavailable
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import events_pb2

BLOCKS = 200

MakeFeed = Callable[..., Awaitable[Feed]]


@pytest.fixture
async def ledger(organisation: Organisation) -> Ledger:
    made = Ledger(organisation)
    await made.commit()
    transaction = made.transaction(payload=b"x" * 500)
    for _ in range(BLOCKS - 1):
        await made.commit(transaction)
    return made


@pytest.fixture
async def peer(organisation: Organisation, ledger: Ledger) -> AsyncIterator[Peer]:
    made = Peer(organisation, ledger)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def other(organisation: Organisation, ledger: Ledger) -> AsyncIterator[Peer]:
    """A second peer of the channel, whose ledger is another copy."""
    copy = Ledger(organisation)
    for number in range(ledger.height):
        await copy.append(common_pb2.Block.FromString(ledger.held(number)))
    made = Peer(organisation, copy)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def feed(organisation: Organisation, tmp_path: Path) -> AsyncIterator[MakeFeed]:
    """Makes a feed that has read its channel and kept next to nothing of it."""
    organisation.write_material(tmp_path)
    tasks: list[asyncio.Task[None]] = []

    async def put(publication: Publication) -> None:
        publication.begin()
        publication.handed_over()

    async def make(*peers: Peer, **settings: str) -> Feed:
        environ = {
            "CORE_SOURCE_ADDRESSES": ",".join(peer.address for peer in peers),
            "CORE_SOURCE_RECONNECT_MAX": "100ms",
        } | {f"CORE_SOURCE_{name}": value for name, value in settings.items()}
        config = configuration.read(None, environ).source
        material = Material(tmp_path, MSPID)
        made = Feed(CHANNEL, "source", config, tmp_path / "checkpoints", material, 1024, put)
        tasks.extend(asyncio.create_task(part()) for part in (made.run, made.read_history))
        await eventually(lambda: made.channel.height == peers[0].ledger.height)
        return made

    yield make
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task


def failures(cause: str) -> float:
    return sample("eventhub_history_failures_total", channel=CHANNEL, cause=cause)


async def read(feed: Feed, *numbers: int) -> list[int]:
    return [(await feed.channel.read(number)).number for number in numbers]


async def test_past_is_read_by_one_stream_in_ranges(feed: MakeFeed, peer: Peer) -> None:
    made = await feed(peer)
    read_before = sample("eventhub_history_blocks_total", channel=CHANNEL)
    numbers = range(BLOCKS - 1)
    assert await read(made, *numbers) == list(numbers)
    assert len(peer.streams) == 2
    assert peer.streams[1] == len(numbers) + 1  # it reads ahead up to the newest
    read_now = sample("eventhub_history_blocks_total", channel=CHANNEL)
    assert read_now - read_before == len(numbers) + 1
    block = await made.channel.read(17)
    assert block.response == events_pb2.DeliverResponse(
        block=common_pb2.Block.FromString(peer.ledger.held(17))
    ).SerializeToString(deterministic=True)
    assert await made.channel.read(17) is block


async def test_readers_of_one_region_share_its_blocks(feed: MakeFeed, peer: Peer) -> None:
    made = await feed(peer)
    numbers = range(BLOCKS - 1)
    readers = [asyncio.create_task(read(made, *numbers)) for _ in range(50)]
    assert await asyncio.gather(*readers) == [list(numbers)] * 50
    assert peer.streams[1:] == [BLOCKS]


async def test_readers_in_many_places_all_come_to_their_end(feed: MakeFeed, peer: Peer) -> None:
    """With memory for a few blocks only, and each reader in another place."""
    made = await feed(peer, HISTORYBYTES="32KB")
    readers = [
        asyncio.create_task(read(made, *range(start, min(start + 12, BLOCKS))))
        for start in range(0, BLOCKS, 4)
    ]
    found = await asyncio.gather(*readers)
    assert [numbers[0] for numbers in found] == list(range(0, BLOCKS, 4))
    assert len(peer.streams) == 2
    assert sample("eventhub_history_waiting", channel=CHANNEL) == 0
    assert 0 < sample("eventhub_history_bytes", channel=CHANNEL) <= 32 * 1024


async def test_what_was_asked_for_first_comes_first(feed: MakeFeed, peer: Peer) -> None:
    made = await feed(peer, HISTORYBYTES="1KB")  # so that nothing is read ahead
    came: list[int] = []

    async def take(number: int) -> None:
        await made.channel.read(number)
        came.append(number)

    asked = [150, 3, 90, 4, 120, 60]
    await asyncio.gather(*(take(number) for number in asked))
    assert came == asked


async def test_reader_that_leaves_takes_nothing_from_the_others(feed: MakeFeed, peer: Peer) -> None:
    made = await feed(peer)
    waiting = [asyncio.create_task(read(made, 50)) for _ in range(3)]
    alone = asyncio.create_task(read(made, 150))
    await asyncio.sleep(0)
    waiting[0].cancel()
    alone.cancel()
    assert await asyncio.gather(*waiting[1:]) == [[50], [50]]
    await asyncio.gather(waiting[0], alone, return_exceptions=True)
    assert sample("eventhub_history_waiting", channel=CHANNEL) == 0


async def test_past_goes_on_at_the_next_address_when_one_leaves_in_the_middle(
    feed: MakeFeed, peer: Peer, other: Peer
) -> None:
    made = await feed(peer, other, HISTORYBYTES="32KB")
    reading = asyncio.create_task(read(made, *range(BLOCKS - 1)))
    await eventually(lambda: peer.streams[1:] != [] and peer.streams[1] > 20)
    await peer.stop()
    assert await reading == list(range(BLOCKS - 1))
    assert sum(other.streams) > 0


async def test_source_that_comes_back_is_waited_for(feed: MakeFeed, peer: Peer) -> None:
    made = await feed(peer)
    await peer.stop()
    before = failures("UNAVAILABLE")
    reading = asyncio.create_task(read(made, 5, 6))
    await eventually(lambda: failures("UNAVAILABLE") > before)
    await peer.start()
    assert await reading == [5, 6]


async def test_block_that_no_source_gives_in_time_is_unavailable(
    feed: MakeFeed, peer: Peer
) -> None:
    made = await feed(peer, ANSWERTIMEOUT="300ms")
    await peer.stop()
    readers = [asyncio.create_task(read(made, number)) for number in (5, 5, 90)]
    found = await asyncio.gather(*readers, return_exceptions=True)
    for number, error in zip((5, 5, 90), found, strict=True):
        assert isinstance(error, BlockUnavailable)
        assert error.status == common_pb2.SERVICE_UNAVAILABLE
        sentence = f"block {number} of mychannel is not kept here, and no source gives it: "
        assert str(error).startswith(sentence + peer.address)
    await peer.start()
    assert await read(made, 5) == [5]


async def test_silent_address_is_left_for_the_next(feed: MakeFeed, peer: Peer, other: Peer) -> None:
    made = await feed(peer, other, ANSWERTIMEOUT="300ms")

    async def say_nothing(stream: MessageStream) -> None:
        await asyncio.Event().wait()

    peer.instead = say_nothing
    before = failures("timeout")
    assert await read(made, 5) == [5]
    assert failures("timeout") == before + 1
    assert made.channel.status.address == peer.address


def damaged(block: common_pb2.Block) -> None:
    block.data.data[0] = b"damaged"


def of_another_history(block: common_pb2.Block) -> None:
    block.data.data[0] = b"another"
    block.header.data_hash = blocks.data_hash(block.data.data)


def unsigned(block: common_pb2.Block) -> None:
    metadata.set_metadata(block, common_pb2.SIGNATURES, b"")


def uncoded(block: common_pb2.Block) -> None:
    metadata.set_metadata(block, common_pb2.TRANSACTIONS_FILTER, b"")


def of_much_metadata(block: common_pb2.Block) -> None:
    """Nothing vouches for that."""
    block.metadata.metadata.extend([b""] * 20)


def of_too_much_metadata(block: common_pb2.Block) -> None:
    """Parsing it would take too long."""
    block.metadata.metadata.extend([b""] * MAX_FIELDS)


def another_number(block: common_pb2.Block) -> None:
    block.header.number += 1


def refuse(status: common_pb2.Status.ValueType) -> Callable[[MessageStream], Awaitable[None]]:
    """Answers the first request with a status."""

    async def answer(stream: MessageStream) -> None:
        async for _ in stream:
            stream.send(events_pb2.DeliverResponse(status=status).SerializeToString())
            return

    return answer


@pytest.mark.parametrize(
    ("alter", "cause"),
    [
        (damaged, "damaged_block"),
        (of_another_history, "signature"),
        (unsigned, "signature"),
        (uncoded, "damaged_block"),
        (of_much_metadata, "damaged_block"),
        (of_too_much_metadata, "malformed"),
        (another_number, "gap"),
    ],
)
async def test_block_that_is_not_the_channels_is_not_given(
    feed: MakeFeed,
    peer: Peer,
    alter: Callable[[common_pb2.Block], None],
    cause: str,
) -> None:
    made = await feed(peer)
    block = common_pb2.Block.FromString(peer.ledger.held(20))
    alter(block)
    peer.ledger.replace(20, block.SerializeToString())
    before = failures(cause)
    with pytest.raises(BlockUnavailable, match=rf"block 20 of mychannel .*{peer.address}"):
        await read(made, 20)
    assert failures(cause) == before + 1
    # Those around it are.
    assert await read(made, 18, 19) == [18, 19]
    assert await read(made, 21, 22) == [21, 22]


async def test_whole_range_before_a_bad_block_is_given(feed: MakeFeed, peer: Peer) -> None:
    """One signature is checked for many blocks; where it does not hold, each is judged."""
    made = await feed(peer)
    block = common_pb2.Block.FromString(peer.ledger.held(20))
    of_another_history(block)
    peer.ledger.replace(20, block.SerializeToString())
    assert await read(made, *range(20)) == list(range(20))
    with pytest.raises(BlockUnavailable, match="block 20 of the source is not signed"):
        await read(made, 20)


async def test_block_that_one_source_cannot_give_comes_from_the_next(
    feed: MakeFeed, peer: Peer, other: Peer
) -> None:
    made = await feed(peer, other)
    block = common_pb2.Block.FromString(peer.ledger.held(20))
    damaged(block)
    peer.ledger.replace(20, block.SerializeToString())
    assert await read(made, *range(18, 23)) == [18, 19, 20, 21, 22]


async def test_past_with_another_chain_than_the_signed_one_is_found_out(
    feed: MakeFeed, peer: Peer, organisation: Organisation
) -> None:
    """Block 0 has no signature: it is held against the one that was read first."""
    made = await feed(peer)
    replaced = Ledger(organisation)
    await replaced.commit()
    peer.ledger.replace(0, replaced.held(0))
    with pytest.raises(BlockUnavailable, match="is not the configuration of mychannel"):
        await read(made, 0)


async def test_source_that_has_no_old_blocks_says_so(feed: MakeFeed, peer: Peer) -> None:
    made = await feed(peer)
    peer.instead = refuse(common_pb2.NOT_FOUND)
    with pytest.raises(BlockUnavailable, match="joined by a snapshot has no older blocks"):
        await read(made, 3)


async def test_large_blocks_among_small_ones_are_not_read_far_ahead(
    feed: MakeFeed, peer: Peer, organisation: Organisation
) -> None:
    ledger = peer.ledger
    large = ledger.transaction(payload=b"x" * 500_000)
    for _ in range(40):
        await ledger.commit(large)
    made = await feed(peer)
    before = sample("eventhub_history_blocks_total", channel=CHANNEL)
    assert await read(made, *range(BLOCKS)) == list(range(BLOCKS))
    assert sample("eventhub_history_blocks_total", channel=CHANNEL) - before < BLOCKS + 20


@asynccontextmanager
async def running(
    organisation: Organisation, folder: Path, *peers: Peer, **times: float
) -> AsyncIterator[History]:
    """A history alone, of a channel that nobody reads live."""
    organisation.write_material(folder)
    addresses = [peer.address for peer in peers]
    source = configuration.read(None, {"CORE_SOURCE_ADDRESSES": ",".join(addresses)}).source
    history = History(
        HistoryConfig("source", "peer", CHANNEL, 1 << 20, 5.0),
        partial(Material(folder, MSPID).dial, source=source, key="source"),
        Addresses(addresses, 0.05, 0.1, asyncio.get_running_loop().time),
        live=lambda: "",
        height=lambda: BLOCKS,
        trust=Trust(CHANNEL, Configurations(folder / "none", None), lambda _: None),
        **times,
    )
    task = asyncio.create_task(history.run())
    try:
        yield history
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_idle_stream_ends_and_another_begins_when_it_is_needed(
    organisation: Organisation, peer: Peer, tmp_path: Path
) -> None:
    async with running(organisation, tmp_path, peer, idle=0.05) as history:
        assert (await history.read(3)).number == 3
        await eventually(lambda: sample("grpc_server_connections") == 0)
        assert (await history.read(150)).number == 150
        assert len(peer.streams) == 2


async def test_block_that_is_unfit_shows_until_it_is_mended(
    organisation: Organisation, peer: Peer, tmp_path: Path
) -> None:
    good = peer.ledger.held(20)
    block = common_pb2.Block.FromString(good)
    damaged(block)
    peer.ledger.replace(20, block.SerializeToString())
    async with running(organisation, tmp_path, peer, look_again=0.01) as history:
        for _ in range(3):
            with pytest.raises(BlockUnavailable):
                await history.read(20)
        assert sample("eventhub_history_unfit", channel=CHANNEL) == 1
        # What else is read changes nothing, and neither does who asks and leaves.
        assert (await history.read(19)).number == 19
        impatient = asyncio.create_task(history.read(20))
        await asyncio.sleep(0)
        impatient.cancel()
        before = failures("damaged_block")
        await eventually(lambda: failures("damaged_block") > before + 1)
        assert sample("eventhub_history_unfit", channel=CHANNEL) == 1
        peer.ledger.replace(20, good)
        await eventually(lambda: sample("eventhub_history_unfit", channel=CHANNEL) == 0)


async def test_block_that_another_address_gives_is_not_unfit(
    organisation: Organisation, peer: Peer, other: Peer, tmp_path: Path
) -> None:
    block = common_pb2.Block.FromString(peer.ledger.held(20))
    damaged(block)
    peer.ledger.replace(20, block.SerializeToString())
    async with running(organisation, tmp_path, peer, other) as history:
        before = failures("damaged_block")
        assert (await history.read(20)).number == 20
        assert failures("damaged_block") == before + 1
        assert sample("eventhub_history_unfit", channel=CHANNEL) == 0


async def test_what_a_source_never_had_is_not_unfit(
    organisation: Organisation, peer: Peer, tmp_path: Path
) -> None:
    peer.instead = refuse(common_pb2.NOT_FOUND)
    async with running(organisation, tmp_path, peer) as history:
        with pytest.raises(BlockUnavailable):
            await history.read(20)
        assert sample("eventhub_history_unfit", channel=CHANNEL) == 0


async def test_history_moves_to_the_address_that_is_read_live(
    feed: MakeFeed, peer: Peer, other: Peer
) -> None:
    made = await feed(peer, other)
    assert await read(made, 3) == [3]
    await peer.stop()
    await peer.start()
    await eventually(lambda: made.channel.status.address == other.address)
    await read(made, 190)
    assert len(other.streams) == 2


def test_past_blocks_are_bounded_with_all_that_is_made_of_them(ledger: Ledger) -> None:
    message = common_pb2.Block.FromString(ledger.held(1))

    def block(number: int) -> ChannelBlock:
        message.header.number = number
        copy = common_pb2.Block.FromString(message.SerializeToString())
        response = events_pb2.DeliverResponse(block=copy).SerializeToString()
        return ChannelBlock(CHANNEL, response, copy)

    def here() -> list[int]:
        return [number for number in range(6) if number in past]

    size = block(1).held_bytes
    past = PastBlocks(3 * size)
    for number in (1, 2, 3):
        past.add(block(number), asked=number == 1)
    assert past.get(1) is not None  # now it was asked for last
    assert not past.lost()
    past.add(block(4), asked=True)
    assert here() == [1, 3, 4]
    assert past.lost()
    assert not past.lost()
    # Something is made of the newest one, which takes more of the memory from then on.
    newest = past.get(4)
    assert newest is not None
    assert newest.filtered_response
    assert here() == [1, 4]
    assert 2 * size < past.held_bytes < 3 * size
    # One alone may be larger than all may be.
    assert newest.on_growth is not None
    newest.held_bytes += 3 * size
    newest.on_growth(3 * size)
    assert here() == [4]
