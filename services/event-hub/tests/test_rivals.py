"""A source that keeps new blocks back is left for one that has them, and for nothing less."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from deliver_peer import CHANNEL, Ledger, Peer
from eventhouse import Client, House, Running, dialled, eventually, interest, sample
from organisation import Organisation

from event_hub.events import FILTEREDBLOCK
from event_hub.sources.chain import Chain, position_of
from event_hub.sources.configurations import Configurations
from event_hub.sources.connection import WAIT, Dialled, SourceRefused, SourceStream
from event_hub.sources.rivals import Rivals, RivalsConfig
from event_hub.sources.trust import Trust
from selvedge_common.protoutil import blocks, seek_request
from selvedge_protos.common import common_pb2

# So that nothing has to be waited for long, and no answer is late on a busy machine.
QUICK = {"SOURCE_COMPAREINTERVAL": "50ms", "SOURCE_ANSWERTIMEOUT": "2s"}

StartPeer = Callable[[Ledger], Awaitable[Peer]]


@pytest.fixture
async def start_peer(organisation: Organisation) -> AsyncIterator[StartPeer]:
    """Starts further peers, each with a ledger of its own."""
    peers: list[Peer] = []

    async def start(ledger: Ledger) -> Peer:
        peer = Peer(organisation, ledger)
        peers.append(peer)
        await peer.start()
        return peer

    yield start
    for peer in peers:
        await peer.stop()


async def copied(house: House) -> Ledger:
    """A ledger with the blocks that the house's has now; they grow apart from here."""
    copy = Ledger(house.organisation)
    for number in range(house.ledger.height):
        await copy.append(common_pb2.Block.FromString(house.ledger.held(number)))
    return copy


def silences() -> float:
    return sample("eventhub_source_failures_total", channel=CHANNEL, cause="silent")


async def caught_up(hub: Running, ledger: Ledger) -> None:
    await eventually(lambda: hub.channel().height == ledger.height)


async def compared(peer: Peer, times: int) -> None:
    """Wait until the hub has asked a peer, and has thought about its answer, so many times."""
    streams = len(peer.streams) + times + 1
    await eventually(lambda: len(peer.streams) >= streams)


async def numbers(client: Client, count: int) -> list[int]:
    return [(await client.hear()).filtered_block.number for _ in range(count)]


async def test_source_that_falls_silent_is_left_for_the_one_that_goes_on(
    house: House, start_peer: StartPeer
) -> None:
    """Two of the three are cut off from their orderers: the third is gone to directly."""
    cut_off = await start_peer(await copied(house))
    also = await start_peer(await copied(house))
    before = silences()
    addresses = f"{cut_off.address},{also.address},{house.peer.address}"
    hub = await house.hub(SOURCE_ADDRESSES=addresses, **QUICK)
    await caught_up(hub, house.ledger)
    assert hub.channel().status.address == cut_off.address
    client = house.client(hub)
    await client.register(interest(FILTEREDBLOCK))
    for _ in range(3):
        await house.ledger.commit(house.ledger.transaction())
    assert await numbers(client, 3) == [1, 2, 3]
    status = hub.channel().status
    assert (status.address, status.trouble) == (house.peer.address, "")
    assert silences() == before + 1
    # It was asked for its newest block, and never followed: that takes the last one as well.
    assert set(also.streams) == {1}


async def test_source_is_kept_while_the_others_have_no_more_or_are_away(
    house: House, start_peer: StartPeer, caplog: pytest.LogCaptureFixture
) -> None:
    behind = await start_peer(await copied(house))
    await house.ledger.commit(house.ledger.transaction())
    same = await start_peer(await copied(house))
    before = silences()
    addresses = f"{house.peer.address},127.0.0.1:1,{behind.address},{same.address}"
    hub = await house.hub(SOURCE_ADDRESSES=addresses, **QUICK)
    await caught_up(hub, house.ledger)
    for peer in (behind, same, behind, same):
        await compared(peer, 1)
    await house.ledger.commit(house.ledger.transaction())
    await caught_up(hub, house.ledger)
    assert hub.channel().status.address == house.peer.address
    assert silences() == before
    # Who keeps the addresses hears of one that is of no use, once.
    said = [record for record in caplog.records if "source not compared" in str(record.msg)]
    assert [record.levelname for record in said if "127.0.0.1:1'" in str(record.msg)] == ["WARNING"]


async def test_block_that_comes_in_time_keeps_the_source(
    house: House, start_peer: StartPeer
) -> None:
    ledger = await copied(house)
    late = await start_peer(ledger)
    before = silences()
    addresses = f"{late.address},{house.peer.address}"
    hub = await house.hub(SOURCE_ADDRESSES=addresses, **QUICK)
    await caught_up(hub, ledger)
    missing = [await house.ledger.commit(house.ledger.transaction()) for _ in range(2)]
    # The rival has shown its newest and the next one: answerTimeout has begun.
    await eventually(lambda: 2 in house.peer.streams)
    for block in missing:
        await ledger.append(block)
    await caught_up(hub, ledger)
    # And over it is: the rival is asked again.
    await compared(house.peer, 1)
    assert hub.channel().status.address == late.address
    assert silences() == before


@pytest.mark.parametrize("lie", ["unsigned", "another history", "far newest"])
async def test_block_that_nobody_signed_changes_nothing(
    house: House, start_peer: StartPeer, stranger: Organisation, lie: str
) -> None:
    forged = await copied(house)
    if lie == "unsigned":
        forged.orderer = stranger.identity("orderer", "orderer")
        await forged.commit(forged.transaction())
    else:
        number = 1 if lie == "another history" else 2**40
        block = blocks.new_block(number, b"elsewhere", [forged.transaction().envelope])
        blocks.sign_block(block, forged.orderer, 0)
        await forged.append(block)
    liar = await start_peer(forged)
    before = silences()
    addresses = f"{house.peer.address},{liar.address}"
    hub = await house.hub(SOURCE_ADDRESSES=addresses, **QUICK)
    await caught_up(hub, house.ledger)
    await compared(liar, 4)
    await house.ledger.commit(house.ledger.transaction())
    await caught_up(hub, house.ledger)
    assert hub.channel().status.address == house.peer.address
    assert silences() == before
    hub.hub.check_sources()


async def test_source_is_not_compared_where_that_is_switched_off(
    house: House, start_peer: StartPeer
) -> None:
    cut_off = await start_peer(await copied(house))
    addresses = f"{cut_off.address},{house.peer.address}"
    off = await house.hub(SOURCE_ADDRESSES=addresses, **(QUICK | {"SOURCE_COMPAREINTERVAL": "0"}))
    await caught_up(off, house.ledger)
    other = QUICK | {"SOURCE_CHECKPOINT": "elsewhere"}
    on = await house.hub(SOURCE_ADDRESSES=addresses, **other)
    await caught_up(on, house.ledger)
    await house.ledger.commit(house.ledger.transaction())
    await caught_up(on, house.ledger)
    assert on.channel().status.address == house.peer.address
    assert off.channel().status.address == cut_off.address
    assert off.channel().height == 1


@asynccontextmanager
async def followed(house: House, silent: Peer, rival: Peer) -> AsyncIterator[SourceStream]:
    """A stream that has come to its end at block 0, and is compared."""

    def dial(address: str) -> Dialled:
        channel, digest = dialled(house.organisation, address)
        return Dialled(channel, house.organisation.identity("hub", "peer"), digest)

    genesis = common_pb2.Block.FromString(silent.ledger.held(0))
    trust = Trust(CHANNEL, Configurations(house.folder / "configurations", None), lambda _: None)
    trust.begin(genesis)
    addresses = [silent.address, rival.address]
    config = RivalsConfig("source", "peer", CHANNEL, addresses, interval=0.02, answer_timeout=2.0)
    rivals = Rivals(config, dial, Chain(CHANNEL, position_of(genesis)), trust)
    async with SourceStream(dial, "peer", silent.address, CHANNEL, "source") as stream:
        await stream.one(0)
        stream.ask(1, seek_request.FOREVER, WAIT)
        async with rivals.compared(stream, silent.address):
            yield stream


async def test_silence_is_told_with_what_to_check(house: House, start_peer: StartPeer) -> None:
    silent = await start_peer(await copied(house))
    await house.ledger.commit(house.ledger.transaction())
    async with followed(house, silent, house.peer) as stream:
        with pytest.raises(SourceRefused) as left:
            await stream.arrived()
    assert left.value.cause == "silent"
    assert str(left.value) == (
        f"the source has sent nothing after block 0, and {house.peer.address} has had block 1 for "
        "the 2 s of source.answerTimeout; check that the source gets blocks from its orderers"
    )


async def test_source_whose_blocks_are_not_taken_is_not_compared(
    house: House, start_peer: StartPeer
) -> None:
    """As where consumers are slow: what it has sent is not known yet."""
    peers = [await start_peer(await copied(house)) for _ in range(4)]
    async with followed(house, *peers[:2]), followed(house, *peers[2:]) as waits:
        arrival = asyncio.create_task(waits.arrived())
        await compared(peers[3], 3)
        arrival.cancel()
    assert peers[1].streams == []
