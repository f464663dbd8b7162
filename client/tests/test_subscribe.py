"""Events, from an event hub and from a peer alike."""

import asyncio
import logging
import re
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from deliver_peer import Ledger, Peer
from eventhouse import PATIENCE, House, eventually
from google.protobuf.timestamp_pb2 import Timestamp
from organisation import Organisation

from event_hub.session import Service
from selvedge_client import (
    Checkpoint,
    Client,
    Event,
    NoSuchBlock,
    NoSuchChannel,
    NotReachable,
    NotTrusted,
    OtherLedger,
    Position,
    Refused,
    User,
    link,
)
from selvedge_common.comm import MessageStream
from selvedge_common.protoutil.blocks import header_hash
from selvedge_common.protoutil.responses import block_response
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2
from selvedge_protos.peer.events_pb2 import DeliverResponse

CONFLICT = transaction_pb2.MVCC_READ_CONFLICT
CHANNEL = "mychannel"

T = TypeVar("T")
GetUser = Callable[[], User]


async def first(events: AsyncGenerator[T, None], number: int) -> list[T]:
    """So many of them."""
    heard: list[T] = []
    async with asyncio.timeout(PATIENCE), aclosing(events):
        async for event in events:
            heard.append(event)
            if len(heard) == number:
                break
    return heard


async def rest(events: AsyncGenerator[T, None]) -> list[T]:
    """All, of a range that ends."""
    async with asyncio.timeout(PATIENCE):
        return [event async for event in events]


def txids(events: list[Event]) -> list[str]:
    return [event.txid for event in events]


def dated(envelope: bytes, moment: Timestamp) -> bytes:
    """A transaction with another timestamp."""
    opened = common_pb2.Envelope.FromString(envelope)
    payload = common_pb2.Payload.FromString(opened.payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    header.timestamp.CopyFrom(moment)
    payload.header.channel_header = header.SerializeToString()
    opened.payload = payload.SerializeToString()
    return opened.SerializeToString()


@pytest.fixture(params=["hub", "peer"])
async def address(request: pytest.FixtureRequest, house: House) -> str:
    """A server of the channel: a hub has Subscribe, of a peer there are blocks."""
    return (await house.hub()).address if request.param == "hub" else house.peer.address


@pytest.fixture
def client(address: str, user: GetUser) -> Client:
    return Client(address, user)


async def test_event_tells_what_happened(house: House, client: Client) -> None:
    committed = house.ledger.transaction(event="Created", payload=b"secret")
    await house.ledger.commit(house.ledger.transaction(event=None), committed)
    (event,) = await rest(client.subscribe(CHANNEL, start=0, until=1))
    assert event.channel == CHANNEL
    assert (event.block, event.position.transaction, event.txid) == (1, None, committed.txid)
    assert (event.chaincode, event.function, event.creator) == ("cc", "invoke", "Org1MSP")
    assert (event.name, event.payload) == ("Created", b"secret")
    assert (event.kind, event.code, event.valid, event.error) == (
        "ENDORSER_TRANSACTION",
        "VALID",
        True,
        "",
    )
    assert event.time is not None
    assert abs(event.time - datetime.now(UTC)) < timedelta(minutes=5)
    lean = await rest(client.subscribe(CHANNEL, start=0, until=1, payload=False))
    assert [each.payload for each in lean] == [b""]


@pytest.mark.parametrize(
    "moment",
    [
        Timestamp(seconds=10**18),
        Timestamp(seconds=-(10**18)),
        Timestamp(seconds=1, nanos=2 * 10**9),
        Timestamp(seconds=253_402_300_800),
    ],
    ids=["too late", "too early", "nanoseconds of two seconds", "year 10000"],
)
async def test_time_that_is_no_moment_ends_no_subscription(
    house: House, client: Client, moment: Timestamp
) -> None:
    """It is what the creator of the transaction writes, and no server checks it."""
    made = house.ledger.transaction()
    await house.ledger.commit(replace(made, envelope=dated(made.envelope, moment)))
    (event,) = await rest(client.subscribe(CHANNEL, start=0, until=1))
    assert (event.txid, event.time) == (made.txid, None)


async def test_filters_are_the_same_everywhere(house: House, client: Client) -> None:
    ledger = house.ledger
    created = ledger.transaction(event="AssetCreated")
    other = ledger.transaction("other", event="Created")
    silent = ledger.transaction(event=None)
    rejected = ledger.transaction(event="AssetCreated", code=CONFLICT)
    await ledger.commit(created, other, silent, rejected)

    async def told(**how: object) -> list[str]:
        return txids(await rest(client.subscribe(CHANNEL, start=1, until=1, **how)))  # type: ignore[arg-type]

    assert await told() == [created.txid, other.txid]
    assert await told(chaincodes={"other"}) == [other.txid]
    assert await told(names=["Asset*"]) == [created.txid]
    assert await told(creators=["Org2MSP"]) == []
    assert await told(validity="invalid") == [rejected.txid]
    assert await told(validity="any") == [created.txid, other.txid, rejected.txid]
    assert await told(transactions=True) == [created.txid, other.txid, silent.txid]


async def test_rejected_transaction_has_its_code(house: House, client: Client) -> None:
    await house.ledger.commit(house.ledger.transaction(code=CONFLICT))
    (event,) = await rest(client.subscribe(CHANNEL, validity="invalid", start=1, until=1))
    assert (event.code, event.valid, event.name) == ("MVCC_READ_CONFLICT", False, "named")


async def test_what_happens_next_is_told_from_the_moment_on(
    house: House, client: Client, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path / "here.json")
    events = client.subscribe(CHANNEL, checkpoint=checkpoint)
    heard = asyncio.create_task(first(events, 1))
    async with asyncio.timeout(PATIENCE):
        while checkpoint.position is None:
            await asyncio.sleep(0.005)
    assert checkpoint.position.next == (1, 0)
    committed = house.ledger.transaction()
    await house.ledger.commit(committed)
    assert txids(await heard) == [committed.txid]


async def test_every_position_is_a_place_to_begin_after(house: House, client: Client) -> None:
    ledger = house.ledger
    for size in (3, 0, 2, 1):
        await ledger.commit(
            *(ledger.transaction(event="Told" if each % 2 == 0 else "x") for each in range(size))
        )
    everything = await rest(client.subscribe(CHANNEL, names=["Told"], start=0, until=4))
    assert len(everything) == 4
    for told, event in enumerate(everything, 1):
        resumed = client.subscribe(CHANNEL, names=["Told"], start=event.position, until=4)
        assert await rest(resumed) == everything[told:]


async def test_checkpoint_is_gone_on_from(house: House, client: Client, tmp_path: Path) -> None:
    committed = [house.ledger.transaction() for _ in range(4)]
    await house.ledger.commit(*committed[:3])
    await house.ledger.commit(committed[3])
    await house.ledger.commit(house.ledger.transaction("other"))
    heard: list[str] = []
    for _ in range(6):
        checkpoint = Checkpoint(tmp_path / "of/mine.json")
        events = client.subscribe(
            CHANNEL, chaincodes=["cc"], start=0, until=3, checkpoint=checkpoint
        )
        async with aclosing(events):
            async for event in events:
                heard.append(event.txid)
                await checkpoint.advance(event.position)
                break
    assert heard == [each.txid for each in committed]
    # It has moved over what there was nothing to tell of.
    moved = Checkpoint(tmp_path / "of/mine.json").position
    assert moved is not None
    assert moved.next == (4, 0)


async def test_checkpoint_waits_for_what_is_not_handled_yet(
    house: House, client: Client, tmp_path: Path
) -> None:
    committed = house.ledger.transaction()
    await house.ledger.commit(committed)
    await house.ledger.commit(house.ledger.transaction("other"))
    for _ in range(2):
        checkpoint = Checkpoint(tmp_path / "mine.json")
        events = client.subscribe(
            CHANNEL, chaincodes=["cc"], start=0, until=2, checkpoint=checkpoint
        )
        assert txids(await rest(events)) == [committed.txid]


async def test_blocks_come_once_in_order(house: House, client: Client) -> None:
    committed = [await house.ledger.commit(house.ledger.transaction()) for _ in range(4)]
    blocks = await rest(client.blocks(CHANNEL, start=1, until=3))
    assert [block.header for block in blocks] == [block.header for block in committed[:3]]
    following = asyncio.create_task(first(client.blocks(CHANNEL, start=4), 2))
    committed.append(await house.ledger.commit(house.ledger.transaction()))
    assert [block.header for block in await following] == [each.header for each in committed[3:]]


async def test_hub_is_subscribed_to(house: House, user: GetUser) -> None:
    """And not read by its blocks, which would look the same."""
    hub = await house.hub()
    await house.ledger.commit(house.ledger.transaction())
    async with aclosing(Client(hub.address, user).subscribe(CHANNEL, start=0)) as events:
        await anext(events)
        assert [session.service for session in hub.consumers] == [Service.SUBSCRIBE]


async def test_filtered_blocks_come_from_a_hub(house: House, user: GetUser) -> None:
    hub = await house.hub()
    committed = house.ledger.transaction()
    await house.ledger.commit(committed)
    blocks = await rest(Client(hub.address, user).filtered_blocks(CHANNEL, start=1, until=1))
    (transaction,) = blocks[0].filtered_transactions
    assert (blocks[0].number, transaction.txid) == (1, committed.txid)


async def test_ledger_is_told_apart_by_its_first_block(house: House, client: Client) -> None:
    await house.ledger.commit(house.ledger.transaction())
    await rest(client.blocks(CHANNEL, start=1, until=1))  # it is there
    ledger = await client.ledger(CHANNEL)
    assert ledger.newest == 1
    assert len(ledger.id) == len(ledger.newest_hash) == 64
    assert ledger.id != ledger.newest_hash


async def test_channel_that_is_not_there_is_said(client: Client, address: str) -> None:
    with pytest.raises(NoSuchChannel, match=f"{address} refused: NOT_FOUND: .*channel '?other"):
        await rest(client.subscribe("other", start=0))
    with pytest.raises(NoSuchChannel):
        await rest(client.blocks("other", start=3))
    with pytest.raises(NoSuchChannel):
        await client.ledger("other")


async def test_block_that_is_not_there_yet_is_said(client: Client) -> None:
    with pytest.raises(NoSuchBlock, match="there is no block 7 of mychannel yet"):
        await rest(client.subscribe(CHANNEL, start=7))
    with pytest.raises(NoSuchBlock, match="there is no block 7 of mychannel yet, the newest is 0"):
        await rest(client.blocks(CHANNEL, start=7))


async def test_position_of_another_ledger_is_noticed(
    house: House, client: Client, tmp_path: Path
) -> None:
    await house.ledger.commit(house.ledger.transaction())
    checkpoint = Checkpoint(tmp_path / "mine.json")
    await checkpoint.advance(Position(1, None, b"of another ledger"))
    with pytest.raises(OtherLedger, match="block 1 of "):
        await rest(client.subscribe(CHANNEL, checkpoint=checkpoint))


async def test_position_is_recognised_by_its_hash(house: House, client: Client) -> None:
    await house.ledger.commit(house.ledger.transaction())
    (block,) = [each async for each in client.blocks(CHANNEL, start=1, until=1)]
    told = Position(1, None, header_hash(block.header))
    assert await client.recognises(CHANNEL, told)
    assert await client.recognises(CHANNEL, told, wait=True)
    assert await client.recognises(CHANNEL, Position(1))
    assert not await client.recognises(CHANNEL, Position(1, None, b"of another ledger"))
    with pytest.raises(NoSuchBlock):
        await client.recognises(CHANNEL, Position(7, None, b"hash"))


async def test_stranger_is_refused(
    address: str, organisation: Organisation, stranger: Organisation
) -> None:
    certificate, key = organisation.tls_pair("client")
    eve = User(stranger.identity("eve"), organisation.tls.pem, certificate, key)
    with pytest.raises(Refused) as refused:
        await rest(Client(address, lambda: eve).subscribe(CHANNEL, start=0))
    assert refused.value.status in ("PERMISSION_DENIED", "FORBIDDEN")
    assert refused.value.address == address


async def test_server_of_another_ca_is_not_waited_for(
    address: str, organisation: Organisation, stranger: Organisation
) -> None:
    certificate, key = organisation.tls_pair("client")
    lost = User(organisation.identity("user"), stranger.tls.pem, certificate, key)
    with pytest.raises(NotTrusted, match=f"{address} has its certificate from another ca"):
        await rest(Client(address, lambda: lost).subscribe(CHANNEL))


async def test_nobody_is_waited_for_and_it_is_said_once(
    user: GetUser, caplog: pytest.LogCaptureFixture
) -> None:
    away: list[NotReachable] = []
    silent = Client("localhost:1", user, on_pause=away.append)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.6):
            await rest(silent.subscribe(CHANNEL))
    assert [str(each) for each in away] == ["localhost:1 does not answer (connection refused)"]
    with caplog.at_level(logging.WARNING, "selvedge_client"), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.6):
            await rest(Client("localhost:1", user).blocks(CHANNEL, start=0))
    assert caplog.messages == ["localhost:1 does not answer (connection refused); waiting for it"]
    with pytest.raises(NotReachable):
        await silent.ledger(CHANNEL)


async def test_next_server_is_used_where_one_is_away(house: House, user: GetUser) -> None:
    hub = await house.hub()
    client = Client(["localhost:1", hub.address], user)
    committed = house.ledger.transaction()
    await house.ledger.commit(committed)
    assert txids(await rest(client.subscribe(CHANNEL, start=0, until=1))) == [committed.txid]
    assert (await client.ledger(CHANNEL)).newest == 1


async def test_next_server_is_used_where_one_takes_connections_and_is_silent(
    house: House, user: GetUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that is stopped, or hangs: its system connects for it."""
    monkeypatch.setattr(link, "CONNECT_SECONDS", 0.2)
    hub = await house.hub()
    committed = house.ledger.transaction()
    await house.ledger.commit(committed)
    with socket.create_server(("localhost", 0)) as frozen:
        client = Client([f"localhost:{frozen.getsockname()[1]}", hub.address], user)
        # gRPC by itself gives a connection more time than `rest` has.
        told = txids(await rest(client.subscribe(CHANNEL, start=0, until=1)))
    assert told == [committed.txid]


async def test_server_that_is_behind_is_waited_for(
    user: GetUser, organisation: Organisation
) -> None:
    """As after one went over to a hub that has yet to read what the other had read."""
    ahead, behind = Ledger(organisation), Ledger(organisation)
    genesis = await ahead.commit()
    await behind.append(genesis)
    transactions = [ahead.transaction() for _ in range(2)]
    peers = [Peer(organisation, ledger) for ledger in (ahead, behind)]
    for peer in peers:
        await peer.start()
    block = await ahead.commit(transactions[0])
    events = Client([peer.address for peer in peers], user).subscribe(CHANNEL, start=0)
    async with asyncio.timeout(PATIENCE), aclosing(events):
        assert (await anext(events)).txid == transactions[0].txid
        await peers[0].stop()
        following = asyncio.create_task(anext(events))
        await behind.append(block)
        await behind.commit(transactions[1])
        assert (await following).txid == transactions[1].txid
    await peers[1].stop()


def test_client_needs_an_address(user: GetUser) -> None:
    with pytest.raises(ValueError, match="give at least one server"):
        Client([], user)


async def test_server_without_the_channel_is_passed_over(
    house: House, user: GetUser, organisation: Organisation
) -> None:
    """As a hub is that reads other channels, beside a peer that has them all."""
    lacking = Peer(organisation, Ledger(organisation, "other"))
    lacking.ledgers = {"other": lacking.ledger}
    await lacking.start()
    committed = house.ledger.transaction()
    await house.ledger.commit(committed)
    client = Client([lacking.address, house.peer.address], user)
    assert (await client.ledger(CHANNEL)).newest == 1
    assert txids(await rest(client.subscribe(CHANNEL, start=0, until=1))) == [committed.txid]
    with pytest.raises(NoSuchChannel):
        await rest(client.subscribe("none", start=0))
    await lacking.stop()


async def test_servers_that_end_every_stream_are_not_called_without_pause(
    user: GetUser, organisation: Organisation
) -> None:
    """As hubs do whose source is away: they say where it begins, and then that they cannot."""
    calls: list[float] = []

    async def instead(stream: MessageStream) -> None:
        calls.append(time.monotonic())
        async for _ in stream:
            stream.send(block_response(ledger.held(0)))
            stream.close(grpc.StatusCode.UNAVAILABLE, "the source is away")

    ledger = Ledger(organisation)
    await ledger.commit()
    peers = [Peer(organisation, ledger) for _ in range(2)]
    for peer in peers:
        peer.instead = instead
        await peer.start()
    away: list[NotReachable] = []
    client = Client([peer.address for peer in peers], user, on_pause=away.append)
    listening = asyncio.create_task(rest(client.blocks(CHANNEL, start=0)))
    await eventually(lambda: len(calls) >= 7)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    # After each round of two a pause, twice as long: at least half of 0.1, 0.2 and 0.4 seconds.
    assert calls[6] - calls[0] >= 0.35
    assert [each.why for each in away] == ["the source is away"]
    for peer in peers:
        await peer.stop()


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNKNOWN, "Stream removed"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.CANCELLED, "The stream was cancelled by the server."),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "900 bytes are waiting, above the limit of 800"),
        (grpc.StatusCode.UNAUTHENTICATED, "EXPIRED: the certificate has expired"),
    ],
    ids=lambda given: given.name if isinstance(given, grpc.StatusCode) else "",
)
async def test_stream_that_breaks_is_gone_on_with(
    house: House, user: GetUser, code: grpc.StatusCode, details: str
) -> None:
    committed = [house.ledger.transaction() for _ in range(2)]
    for each in committed:
        await house.ledger.commit(each)

    async def end(stream: MessageStream) -> None:
        await anext(aiter(stream))
        stream.send(block_response(house.ledger.held(1)))
        house.peer.instead = None
        stream.close(code, details)

    client = Client(house.peer.address, user)
    house.peer.instead = end
    heard = txids(await rest(client.subscribe(CHANNEL, start=1, until=2)))
    assert heard == [each.txid for each in committed]
    house.peer.instead = end
    numbers = [each.header.number for each in await rest(client.blocks(CHANNEL, start=1, until=2))]
    assert numbers == [1, 2]


async def test_call_whose_connection_breaks_before_it_is_answered_is_made_again(
    house: House, user: GetUser
) -> None:
    ends = [
        (grpc.StatusCode.CANCELLED, "The call was cancelled by the server."),
        (grpc.StatusCode.UNKNOWN, "Stream removed"),
    ]

    async def end(stream: MessageStream) -> None:
        await anext(aiter(stream))
        stream.close(*ends.pop())
        if not ends:
            house.peer.instead = None

    house.peer.instead = end
    (block,) = await rest(Client(house.peer.address, user).blocks(CHANNEL, start=0, until=0))
    assert block.header.number == 0


@pytest.mark.parametrize(
    ("stood", "code", "details"),
    [
        (True, grpc.StatusCode.RESOURCE_EXHAUSTED, "EVENT_TOO_LARGE: an event has 9 bytes"),
        (True, grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 8)"),
        (True, grpc.StatusCode.INVALID_ARGUMENT, "the request is none"),
        (False, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_INTERESTS: 9 values"),
        (False, grpc.StatusCode.INTERNAL, "HUB_FAULT: the hub has a fault"),
    ],
    ids=["event", "message", "request", "interests", "fault"],
)
async def test_refusal_that_would_be_the_same_again_ends_it(
    house: House, user: GetUser, stood: bool, code: grpc.StatusCode, details: str
) -> None:
    calls = 0

    async def end(stream: MessageStream) -> None:
        nonlocal calls
        calls += 1
        await anext(aiter(stream))
        if stood:
            stream.send(block_response(house.ledger.held(0)))
        stream.close(code, details)

    house.peer.instead = end
    with pytest.raises(Refused, match=re.escape(f"{code.name}: {details}")):
        await rest(Client(house.peer.address, user).blocks(CHANNEL, start=0))
    assert calls == 1


async def test_blocks_go_on_with_a_renewed_certificate(
    house: House, address: str, client: Client, organisation: Organisation
) -> None:
    """The server ends the stream of the old one when that expires."""
    await rest(client.blocks(CHANNEL, start=0, until=0))
    certificate, key = organisation.tls_pair("client")
    users = [
        User(organisation.identity("user", minutes=minutes), organisation.tls.pem, certificate, key)
        for minutes in (30, 2 / 60)
    ]
    away: list[NotReachable] = []
    renewing = Client(
        address, lambda: users.pop() if len(users) > 1 else users[0], on_pause=away.append
    )
    blocks = renewing.blocks(CHANNEL)
    async with asyncio.timeout(PATIENCE), aclosing(blocks):
        following = asyncio.create_task(anext(blocks))
        await eventually(lambda: bool(away))
        committed = await house.ledger.commit(house.ledger.transaction())
        assert (await following).header == committed.header
    assert [each.why for each in away] == [
        "FORBIDDEN to go on with blocks of mychannel: the certificate has expired, or may read it "
        "no more"
    ]


async def test_next_block_is_waited_for_at_a_server_that_comes_back_behind(
    user: GetUser, organisation: Organisation
) -> None:
    """Nobody named a block that is not there yet."""
    ahead, behind = Ledger(organisation), Ledger(organisation)
    await behind.append(await ahead.commit())
    held = [await ahead.commit(ahead.transaction()) for _ in range(2)]
    peer = Peer(organisation, ahead)
    await peer.start()
    away: list[NotReachable] = []
    blocks = Client(peer.address, user, on_pause=away.append).blocks(CHANNEL)
    async with asyncio.timeout(PATIENCE), aclosing(blocks):
        following = asyncio.create_task(anext(blocks))
        # The one for the newest block, and the one that waits for the next.
        await eventually(lambda: len(peer.streams) == 2)
        await peer.stop()
        peer.ledger = behind
        await peer.start()
        # It has asked for a block beyond the next one, and for the newest, to say which that is.
        await eventually(lambda: len(peer.streams) == 4)
        for block in held:
            await behind.append(block)
        made = await behind.commit(behind.transaction())
        assert (await following).header == made.header
    assert away
    await peer.stop()


async def test_answer_without_the_block_is_no_answer(house: House, user: GetUser) -> None:
    async def end(stream: MessageStream) -> None:
        await anext(aiter(stream))
        house.peer.instead = None
        stream.send(DeliverResponse(status=common_pb2.SUCCESS).SerializeToString())
        stream.close(grpc.StatusCode.OK, "")

    house.peer.instead = end
    assert (await Client(house.peer.address, user).ledger(CHANNEL)).newest == 0
