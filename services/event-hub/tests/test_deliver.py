"""What a client of the hub's Deliver sees."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from block_readers import FAIL, NARROW, WAIT, BlockReader
from deliver_peer import Ledger, Peer
from eventhouse import House, Running, eventually, sample
from organisation import Organisation

from event_hub.session import Service, Session
from selvedge_common.protoutil import block_events, seek, seek_request
from selvedge_common.protoutil.responses import block_response
from selvedge_common.protoutil.seek_request import FOREVER, NEWEST, NEXT_COMMIT, OLDEST
from selvedge_common.protoutil.wire import timestamp_of
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import events_pb2, transaction_pb2

# So little that the newest block alone is kept.
KEEP_ONE = {"PEER_EVENTS_RECENTBYTES": "1KB", "SOURCE_HISTORYBYTES": "1KB"}

Read = Callable[..., BlockReader]


@pytest.fixture(params=["native", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    """What carries the hub's listener."""
    kind: str = request.param
    return kind


@pytest.fixture
async def read(house: House) -> AsyncIterator[Read]:
    """Opens a reader; takes what BlockReader takes after the house."""
    readers: list[BlockReader] = []

    def open_reader(hub: Running, *args: Any, **how: Any) -> BlockReader:
        readers.append(BlockReader(house, hub, *args, **how))
        return readers[-1]

    yield open_reader
    for reader in readers:
        await reader.leave()


async def grown(house: House, height: int, payload: bytes = b"payload") -> None:
    """Have the ledger grow to so many blocks of one transaction each."""
    while house.ledger.height < height:
        await house.ledger.commit(house.ledger.transaction(payload=payload))


async def told(height: int, channel: str = "mychannel") -> None:
    """Return once the hub has so many blocks."""
    await eventually(lambda: sample("eventhub_source_height", channel=channel) >= height)


def sessions(hub: Running) -> list[Session]:
    """The open streams of readers."""
    return [each for each in hub.consumers if each.service is Service.DELIVER]


async def answered(hub: Running, readers: int) -> None:
    """Return once so many requests are being answered."""
    await eventually(lambda: sum(bool(each.interests()) for each in sessions(hub)) == readers)


def closed(reason: str) -> float:
    """How many streams have ended for a reason."""
    return sample("eventhub_consumers_closed_total", reason=reason)


@pytest.mark.parametrize(
    ("start", "stop", "behavior", "expected"),
    [
        (OLDEST, NEWEST, WAIT, [0, 1, 2, 3, 4, "SUCCESS"]),
        (OLDEST, OLDEST, FAIL, [0, "SUCCESS"]),
        (NEWEST, NEWEST, FAIL, [4, "SUCCESS"]),
        (1, 3, WAIT, [1, 2, 3, "SUCCESS"]),
        (3, FOREVER, FAIL, [3, 4, "NOT_FOUND"]),
        (NEWEST, OLDEST, WAIT, [4, "SUCCESS"]),
        (NEXT_COMMIT, NEXT_COMMIT, FAIL, ["NOT_FOUND"]),
        (5, 9, FAIL, ["NOT_FOUND"]),
        (6, 9, WAIT, ["NOT_FOUND"]),
        (3, 2, WAIT, ["BAD_REQUEST"]),
    ],
)
@pytest.mark.parametrize("method", ["Deliver", "DeliverFiltered", "DeliverWithPrivateData"])
async def test_every_form_of_seek_is_answered(
    house: House,
    read: Read,
    method: str,
    start: seek_request.Position,
    stop: seek_request.Position,
    behavior: seek_request.Behavior,
    expected: list[int | str],
) -> None:
    await grown(house, 5)
    hub = await house.hub()
    await told(5)
    reader = read(hub, method)
    await reader.ask(start, stop, behavior)
    assert await reader.answers(len(expected)) == expected


async def test_blocks_come_as_they_are_committed(house: House, read: Read, transport: str) -> None:
    hub = await house.hub(TRANSPORT_KIND=transport)
    await told(1)
    readers = [read(hub) for _ in range(3)]
    starts: list[seek_request.Position] = [OLDEST, NEXT_COMMIT, 1]
    for reader, start in zip(readers, starts, strict=True):
        await reader.ask(start)
    assert await readers[0].answer() == 0
    await answered(hub, 3)
    for number in range(1, 20):
        await grown(house, number + 1)
        assert [await reader.answer() for reader in readers] == [number] * 3


async def test_a_stream_answers_one_request_after_another(
    house: House, read: Read, transport: str
) -> None:
    await grown(house, 4)
    hub = await house.hub(TRANSPORT_KIND=transport)
    await told(4)
    before = closed("HALF_CLOSED")
    reader = read(hub)
    for start, stop in ((OLDEST, 1), (NEWEST, NEWEST), (4, 5)):
        await reader.ask(start, stop)
    assert await reader.answers(5) == [0, 1, "SUCCESS", 3, "SUCCESS"]
    await grown(house, 7)
    assert await reader.answers(3) == [4, 5, "SUCCESS"]
    await reader.call.done_writing()
    assert await reader.ended() == (grpc.StatusCode.OK, "")
    await eventually(lambda: closed("HALF_CLOSED") == before + 1)


async def test_a_block_comes_byte_for_byte_as_the_source_sent_it(house: House, read: Read) -> None:
    await grown(house, 3)
    hub = await house.hub()
    await told(3)
    reader = read(hub)
    await reader.ask()
    for number in range(3):
        assert await reader.hear_bytes() == block_response(house.ledger.held(number))
    await grown(house, 4)
    assert await reader.hear_bytes() == block_response(house.ledger.held(3))


async def test_other_forms_say_what_is_in_the_block(house: House, read: Read) -> None:
    valid = house.ledger.transaction(event="Created", payload=b"secret")
    conflict = house.ledger.transaction(code=transaction_pb2.MVCC_READ_CONFLICT)
    block = await house.ledger.commit(valid, conflict)
    hub = await house.hub()
    await told(2)
    filtered, private = read(hub, "DeliverFiltered"), read(hub, "DeliverWithPrivateData")
    for reader in (filtered, private):
        await reader.ask(1)
    assert (await filtered.hear()).filtered_block == block_events.filtered_block(block)
    assert (await private.hear()).block_and_private_data == events_pb2.BlockAndPrivateData(
        block=block
    )


async def test_blocks_that_are_not_kept_come_from_the_source_again(
    house: House, read: Read, transport: str
) -> None:
    await grown(house, 40)
    hub = await house.hub(TRANSPORT_KIND=transport, **KEEP_ONE)
    await told(40)
    before = sample("eventhub_history_blocks_total", channel="mychannel")
    readers = [read(hub, method) for method in ("Deliver", "DeliverFiltered", "Deliver")]
    starts: list[seek_request.Position] = [OLDEST, OLDEST, 17]
    for reader, start in zip(readers, starts, strict=True):
        await reader.ask(start)
    assert await readers[0].answers(40) == [*range(40)]
    assert await readers[1].answers(40) == [*range(40)]
    assert await readers[2].answers(23) == [*range(17, 40)]
    assert sample("eventhub_history_blocks_total", channel="mychannel") >= before + 39
    await grown(house, 41)
    assert [await reader.answer() for reader in readers] == [40] * 3


async def test_a_reader_goes_on_after_a_restart_of_the_hub(house: House, read: Read) -> None:
    await grown(house, 4)
    hub = await house.hub(**KEEP_ONE)
    await told(4)
    reader = read(hub)
    await reader.ask()
    assert await reader.answers(4) == [*range(4)]
    await hub.stop()
    code, sentence = await reader.ended()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert sentence.startswith("SHUTTING_DOWN: ")
    await grown(house, 6)
    hub = await house.hub(**KEEP_ONE)
    again = read(hub)
    # The hub has yet to read the blocks that came meanwhile.
    await again.ask(4)
    assert await again.answers(2) == [4, 5]


async def test_a_source_that_is_away_ends_a_replay_and_not_a_live_stream(
    house: House, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    await grown(house, 5)
    hub = await house.hub(SOURCE_ANSWERTIMEOUT="200ms", **KEEP_ONE)
    await told(5)
    live = read(hub)
    await live.ask(NEWEST)
    assert await live.answer() == 4
    await house.peer.stop()
    before = closed("BLOCK_UNAVAILABLE")
    reader = read(hub)
    await reader.ask()
    assert await reader.answer() == "SERVICE_UNAVAILABLE"
    assert await reader.ended() == (grpc.StatusCode.OK, "")
    await eventually(lambda: closed("BLOCK_UNAVAILABLE") == before + 1)
    assert "block 0 of mychannel is not kept here, and no source gives it" in caplog.text
    await house.peer.start()
    await grown(house, 6)
    assert await live.answer() == 5
    again = read(hub)
    await again.ask()
    assert await again.answers(6) == [*range(6)]


async def test_one_that_does_not_read_hurts_nobody_and_misses_nothing(
    house: House, read: Read, transport: str
) -> None:
    hub = await house.hub(TRANSPORT_KIND=transport, PEER_EVENTS_RECENTBYTES="64KB")
    await told(1)
    slow, quick = read(hub, options=NARROW), read(hub)
    for reader in (slow, quick):
        await reader.ask(1)
    await answered(hub, 2)
    await grown(house, 60, bytes(32 * 1024))
    assert await quick.answers(59) == [*range(1, 60)]
    behind = sorted(each.blocks_behind()["mychannel"] for each in sessions(hub))
    assert behind[0] == 0
    assert behind[1] > 20
    assert await slow.answers(59) == [*range(1, 60)]
    # It has caught up, and is told at once again.
    await grown(house, 61)
    assert [await reader.answer() for reader in (slow, quick)] == [60, 60]


async def test_who_does_not_read_large_blocks_does_not_keep_them_from_others(
    house: House, read: Read, transport: str
) -> None:
    """Each block is above the even share of what may wait for all, so they wait for each other."""
    await grown(house, 2, bytes(250_000))
    hub = await house.hub(TRANSPORT_KIND=transport, PEER_EVENTS_OUTBOX_TOTALBYTES="1MB")
    await told(2)
    stuck = [read(hub, options=NARROW) for _ in range(4)]
    before = closed("SLOW_CONSUMER")
    for reader in stuck:
        await reader.ask(1)
    await eventually(
        lambda: sum(bool(each.pending_bytes) for each in sessions(hub)) == 2  # no room for a third
    )
    quick = read(hub)
    await quick.ask(1)
    assert await quick.answer() == 1
    assert closed("SLOW_CONSUMER") > before


async def test_one_that_takes_nothing_for_too_long_is_closed(house: House, read: Read) -> None:
    hub = await house.hub(PEER_EVENTS_SENDTIMEOUT="300ms")
    await told(1)
    slow = read(hub, options=NARROW)
    await slow.ask(1)
    await answered(hub, 1)
    before = closed("SEND_TIMEOUT")
    await grown(house, 40, bytes(64 * 1024))
    await eventually(lambda: closed("SEND_TIMEOUT") == before + 1)


async def test_an_idle_stream_ends_when_the_identity_expires(
    house: House, read: Read, transport: str
) -> None:
    hub = await house.hub(TRANSPORT_KIND=transport)
    await told(1)
    before = closed("EXPIRED")
    reader = read(hub, identity=house.organisation.identity("short", minutes=2 / 60))
    await reader.ask()
    assert await reader.answers(2) == [0, "FORBIDDEN"]
    assert await reader.ended() == (grpc.StatusCode.OK, "")
    await eventually(lambda: closed("EXPIRED") == before + 1)


async def test_who_is_no_reader_of_the_channel_is_forbidden(
    house: House, read: Read, stranger: Organisation
) -> None:
    hub = await house.hub()
    await told(1)
    before = closed("CHANNEL_FORBIDDEN")
    expired = house.organisation.identity("expired", minutes=-1)
    for identity in (stranger.identity("mallory"), expired):
        reader = read(hub, identity=identity)
        await reader.ask()
        assert await reader.answer() == "FORBIDDEN"
        assert await reader.ended() == (grpc.StatusCode.OK, "")
    await eventually(lambda: closed("CHANNEL_FORBIDDEN") == before + 2)


async def test_a_configuration_that_lets_somebody_read_no_more_ends_the_streams(
    house: House, read: Read
) -> None:
    partner = Organisation("Org2MSP")
    await house.ledger.configure([house.organisation, partner], house.ledger.orderer)
    hub = await house.hub()
    await told(2)
    stays, goes = read(hub), read(hub, identity=partner.identity("partner"))
    for reader in (stays, goes):
        await reader.ask(1)
        assert await reader.answer() == 1
    await house.ledger.configure([house.organisation], house.ledger.orderer)
    assert await goes.answer() == "FORBIDDEN"
    assert await stays.answer() == 2
    await grown(house, 4)
    assert await stays.answer() == 3


async def test_a_request_is_bound_to_the_certificate_of_its_connection(
    house: House, read: Read
) -> None:
    hub = await house.hub()
    await told(1)
    before = closed("MESSAGE_REFUSED")
    for wrong in (b"", b"x" * 32):
        reader = read(hub)
        await reader.ask(tls_cert_hash=wrong)
        assert await reader.answer() == "BAD_REQUEST"
        assert await reader.ended() == (grpc.StatusCode.OK, "")
    await eventually(lambda: closed("MESSAGE_REFUSED") == before + 2)


async def test_a_request_that_was_made_too_long_ago_is_bad(
    house: House, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = await house.hub(PEER_EVENTS_TIMEWINDOW="10s")
    await told(1)
    reader = read(hub)
    stamp = timestamp_of()
    stamp.seconds -= 20
    monkeypatch.setattr("selvedge_common.protoutil.seek_request.timestamp_of", lambda: stamp)
    await reader.ask()
    assert await reader.answer() == "BAD_REQUEST"


async def test_what_is_no_request_is_bad(house: House, read: Read) -> None:
    hub = await house.hub()
    reader = read(hub)
    await reader.say(b"\xff\xff")
    assert await reader.answer() == "BAD_REQUEST"
    assert await reader.ended() == (grpc.StatusCode.OK, "")


async def test_a_channel_that_is_not_here_is_not_found(house: House, read: Read) -> None:
    hub = await house.hub()
    before = closed("CHANNEL_UNKNOWN")
    reader = read(hub)
    await reader.ask(channel="elsewhere")
    assert await reader.answer() == "NOT_FOUND"
    await eventually(lambda: closed("CHANNEL_UNKNOWN") == before + 1)


async def test_a_channel_whose_configuration_is_yet_to_come_is_unavailable(
    house: House, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    await house.peer.stop()
    hub = await house.hub()
    reader = read(hub)
    await reader.ask()
    assert await reader.answer() == "SERVICE_UNAVAILABLE"
    assert "mychannel has not come from the source yet" in caplog.text
    await house.peer.start()
    await told(1)
    again = read(hub)
    await again.ask()
    assert await again.answer() == 0


async def test_blocks_of_an_orderer_come_whole_and_in_no_other_form(
    house: House, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    await grown(house, 2)
    orderer = Peer(house.organisation, house.ledger, kind="orderer")
    await orderer.start()
    hub = await house.hub(SOURCE_KIND="orderer", SOURCE_ADDRESSES=orderer.address)
    await told(2)
    reader = read(hub)
    await reader.ask()
    response = await reader.hear()
    assert response.block.header == common_pb2.Block.FromString(house.ledger.held(0)).header
    assert not response.block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER]
    assert await reader.answer() == 1
    before = closed("NOT_VALIDATED")
    for method in ("DeliverFiltered", "DeliverWithPrivateData"):
        other = read(hub, method)
        await other.ask()
        assert await other.answer() == "NOT_IMPLEMENTED"
    assert "mychannel comes from an orderer" in caplog.text
    await eventually(lambda: closed("NOT_VALIDATED") == before + 2)
    await orderer.stop()


async def test_a_block_above_the_limit_is_refused_by_name(
    house: House, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    await grown(house, 2)
    await grown(house, 3, bytes(32 * 1024))
    hub = await house.hub(PEER_EVENTS_MAXSENDMSGSIZE="16KB")
    await told(3)
    before = closed("EVENT_TOO_LARGE")
    whole, filtered = read(hub), read(hub, "DeliverFiltered")
    for reader in (whole, filtered):
        await reader.ask(1)
    assert await whole.answers(2) == [1, "REQUEST_ENTITY_TOO_LARGE"]
    assert await filtered.answers(2) == [1, 2]
    assert "raise peer.events.maxSendMsgSize" in caplog.text
    await eventually(lambda: closed("EVENT_TOO_LARGE") == before + 1)


async def test_readers_and_listeners_share_the_places(house: House, read: Read) -> None:
    hub = await house.hub(PEER_EVENTS_MAXCONSUMERS="2")
    await told(1)
    listener = house.client(hub)
    await listener.register()
    reader = read(hub)
    await reader.ask()
    assert await reader.answer() == 0
    late = read(hub)
    code, sentence = await late.ended()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("TOO_MANY_CONSUMERS: ")
    await reader.leave()
    await eventually(lambda: not sessions(hub))
    later = read(hub)
    await later.ask()
    assert await later.answer() == 0


async def test_one_that_asks_for_nothing_loses_its_place(
    house: House, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seek, "FIRST_REQUEST_SECONDS", 0.05)
    hub = await house.hub()
    before = closed("NO_REQUEST")
    code, sentence = await read(hub).ended()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert sentence.startswith("NO_REQUEST: ")
    await eventually(lambda: closed("NO_REQUEST") == before + 1)


async def test_operators_are_shown_who_reads_what(house: House, read: Read) -> None:
    await grown(house, 3)
    hub = await house.hub()
    await told(3)
    labels = {"channel": "mychannel", "filtered": "true", "data_type": "filtered_block"}
    sent = sample("deliver_blocks_sent", **labels)
    reader = read(hub, "DeliverFiltered")
    await reader.ask(1)
    assert await reader.answers(2) == [1, 2]
    (session,) = sessions(hub)
    assert session.identity == "Org1MSP/user"
    assert list(session.interests()) == ["mychannel from block 1: filtered_block"]
    assert session.delivered == 2
    assert session.blocks_behind() == {"mychannel": 0}
    assert sample("eventhub_consumers", kind="DELIVER") == 1
    await grown(house, 5)
    assert await reader.answers(2) == [3, 4]
    await eventually(lambda: sample("deliver_blocks_sent", **labels) == sent + 4)
    before = closed("CLIENT_GONE")
    await reader.leave()
    await eventually(lambda: closed("CLIENT_GONE") == before + 1)
    assert sample("eventhub_consumers", kind="DELIVER") == 0


async def test_every_channel_is_read_by_its_name(house: House, read: Read) -> None:
    other = Ledger(house.organisation, "other")
    await other.commit()
    await other.commit(other.transaction())
    house.peer.ledgers["other"] = other
    hub = await house.hub(SOURCE_CHANNELS="mychannel,other")
    await told(1)
    await told(2, "other")
    reader = read(hub)
    await reader.ask(OLDEST, NEWEST, channel="mychannel")
    await reader.ask(OLDEST, NEWEST, channel="other")
    assert await reader.answers(5) == [0, "SUCCESS", 0, 1, "SUCCESS"]


async def test_many_readers_get_each_block(house: House, read: Read) -> None:
    hub = await house.hub()
    await told(1)
    readers = [read(hub) for _ in range(50)]
    await asyncio.gather(*(reader.ask(NEXT_COMMIT) for reader in readers))
    await answered(hub, 50)
    await grown(house, 21)
    heard = await asyncio.gather(*(reader.answers(20) for reader in readers))
    assert heard == [[*range(1, 21)]] * 50
