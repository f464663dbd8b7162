"""What a subscriber sees."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import grpc
import grpc.aio
import pytest
from eventhouse import eventually, sample
from organisation import Organisation
from subscribers import Stage, configuration, staged

from event_hub.session import Service
from event_hub.subscriptions import head, subscription
from selvedge_common.protoutil.event_filter import EventFilter, Kind
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import Filter, Notice, Position

CONFLICT = transaction_pb2.MVCC_READ_CONFLICT
# A connection on which little can be under way, so that who does not read is noticed soon.
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * 1024))


@pytest.fixture(params=["native", "grpcio"])
async def stage(request: pytest.FixtureRequest, organisation: Organisation) -> AsyncIterator[Stage]:
    """A channel with block 0, on either transport."""
    async with staged(organisation, request.param) as made:
        await made.commit()
        yield made


def after(block: Position, transaction: int) -> Position:
    """The position after a transaction of the block."""
    return Position(block=block.block, transaction=transaction, block_hash=block.block_hash)


async def waits(stage: Stage, subscribers: int = 1) -> None:
    """Return once so many have been told everything."""
    await eventually(lambda: _caught_up(stage) >= subscribers)


def _caught_up(stage: Stage) -> int:
    return sum(
        bool(session.interests()) and not session.blocks_behind() for session in stage.consumers
    )


async def test_subscriber_hears_of_what_happens_next(stage: Stage) -> None:
    ledger = stage.ledger
    before = await stage.commit(ledger.transaction())
    subscriber = stage.subscribe()
    assert await subscriber.begin() == before
    committed = ledger.transaction(event="Created", payload=b"secret")
    position = await stage.commit(ledger.transaction(event=None), committed)

    notice = await subscriber.hear()
    assert notice.position == position
    told = notice.transaction
    assert (told.txid, told.code, told.creator_msp_id) == (
        committed.txid,
        transaction_pb2.VALID,
        "Org1MSP",
    )
    assert (told.chaincode, told.function) == ("cc", "invoke")
    assert (told.type, told.error) == (common_pb2.ENDORSER_TRANSACTION, "")
    assert abs(told.timestamp.seconds - datetime.now(UTC).timestamp()) < 600
    assert (told.event.event_name, told.event.payload) == ("Created", b"")


async def test_payload_comes_where_it_is_asked_for(stage: Stage) -> None:
    both = [stage.subscribe(payload=payload) for payload in (True, False)]
    for subscriber in both:
        await subscriber.begin()
    await stage.commit(stage.ledger.transaction(payload=b"secret"))
    heard = [(await subscriber.hear()).transaction.event.payload for subscriber in both]
    assert heard == [b"secret", b""]


async def test_past_comes_from_the_block_that_is_named(stage: Stage) -> None:
    ledger = stage.ledger
    committed = [ledger.transaction() for _ in range(5)]
    for each in committed:
        await stage.commit(each)
    everything = stage.subscribe(start=0)
    assert await everything.begin() is None
    assert await everything.events(5) == [each.txid for each in committed]
    later = stage.subscribe(start=4)
    begin = await later.begin()
    assert begin is not None
    assert begin == Position(block=3, block_hash=stage.make(3).hash)
    assert await later.events(2) == [each.txid for each in committed[3:]]
    follows = ledger.transaction()
    await stage.commit(follows)
    for subscriber in (everything, later):
        assert await subscriber.events(1) == [follows.txid]


async def test_next_block_may_be_named(stage: Stage) -> None:
    subscriber = stage.subscribe(start=1)
    assert await subscriber.begin() == Position(block=0, block_hash=stage.make(0).hash)
    committed = stage.ledger.transaction()
    await stage.commit(committed)
    assert await subscriber.events(1) == [committed.txid]


async def test_every_position_resumes_without_repeating_or_omitting(stage: Stage) -> None:
    ledger = stage.ledger
    committed = []
    for number in range(4):
        block = [
            ledger.transaction(event="Told" if each % 2 else "Other") for each in range(2 * number)
        ]
        committed += [each.txid for each in block[1::2]]
        end = await stage.commit(*block)
    wanted = Filter(event_names=["Told"])
    subscriber = stage.subscribe(start=0, wanted=wanted)
    await subscriber.begin()
    notices = await subscriber.until(end)
    assert [notice.transaction.txid for notice in notices if notice.transaction.txid] == committed
    heard: list[str] = []
    for notice in notices:
        heard += [notice.transaction.txid] if notice.HasField("transaction") else []
        resumed = stage.subscribe(start=notice.position, wanted=wanted)
        assert await resumed.begin() == notice.position
        missing = len(committed) - len(heard)
        assert heard + await resumed.events(missing) == committed
        await resumed.leave()
    further = ledger.transaction(event="Told")
    resumed = stage.subscribe(start=end, wanted=wanted)
    await resumed.begin()
    await stage.commit(further)
    assert await resumed.events(1) == [further.txid]


async def test_position_within_a_block_needs_no_hash(stage: Stage) -> None:
    first, second = (stage.ledger.transaction() for _ in range(2))
    end = await stage.commit(first, second)
    subscriber = stage.subscribe(start=Position(block=end.block, transaction=0))
    assert await subscriber.begin() == after(end, 0)
    assert await subscriber.events(1) == [second.txid]


async def test_filters_decide_what_is_told(stage: Stage) -> None:
    ledger = stage.ledger
    created = ledger.transaction(event="AssetCreated")
    other = ledger.transaction("other", event="Created")
    silent = ledger.transaction(event=None)
    rejected = ledger.transaction(event="AssetCreated", code=CONFLICT)
    end = await stage.commit(created, other, silent, rejected)
    told = {
        "by default": (Filter(), [created, other]),
        "of a chaincode": (Filter(chaincodes=["other", "none"]), [other]),
        "of a name": (Filter(event_names=["Asset*", "none"]), [created]),
        "of a creator": (Filter(creator_msp_ids=["Org1MSP"]), [created, other]),
        "of a stranger": (Filter(creator_msp_ids=["Org2MSP"]), []),
        "rejected": (Filter(validity=Filter.INVALID), [rejected]),
        "whatever came of it": (Filter(validity=Filter.ANY), [created, other, rejected]),
        "all valid ones": (Filter(transactions=True), [created, other, silent]),
        "everything": (
            Filter(validity=Filter.ANY, transactions=True),
            [created, other, silent, rejected],
        ),
    }
    for how, (wanted, transactions) in told.items():
        subscriber = stage.subscribe(start=end.block, wanted=wanted)
        await subscriber.begin()
        heard = [n.transaction.txid for n in await subscriber.until(end) if n.transaction.txid]
        assert heard == [transaction.txid for transaction in transactions], how
        await subscriber.leave()


async def test_rejected_transaction_is_told_with_its_code(stage: Stage) -> None:
    subscriber = stage.subscribe(wanted=Filter(validity=Filter.INVALID))
    await subscriber.begin()
    rejected = stage.ledger.transaction(code=CONFLICT)
    garbage = stage.ledger.transaction(code=transaction_pb2.BAD_PAYLOAD)
    garbage.envelope = b"\xff"
    await stage.commit(rejected, garbage)
    first, second = (await subscriber.hear()).transaction, (await subscriber.hear()).transaction
    assert (first.txid, first.code, first.error) == (rejected.txid, CONFLICT, "")
    assert (second.txid, second.code) == ("", transaction_pb2.BAD_PAYLOAD)
    assert "is not a marshalled common.Envelope" in second.error


async def test_caught_up_subscriber_knows_where_it_is(stage: Stage) -> None:
    for _ in range(10):
        end = await stage.commit(stage.ledger.transaction())
    subscriber = stage.subscribe(start=0, wanted=Filter(chaincodes=["none"]))
    await subscriber.begin()
    assert await subscriber.hear() == Notice(position=end)


async def test_long_silence_of_the_past_is_marked_once_in_a_while(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "MARKER_BLOCKS", 3)
    for number in range(1, 9):
        await stage.commit(stage.ledger.transaction("cc" if number == 5 else "other"))
    subscriber = stage.subscribe(start=0, wanted=Filter(chaincodes=["cc"]))
    await subscriber.begin()
    heard = [await subscriber.hear() for _ in range(3)]
    told = [(notice.position.block, notice.HasField("transaction")) for notice in heard]
    assert told == [(2, False), (5, True), (8, False)]


async def test_waiting_subscriber_is_told_now_and_then_that_its_position_moves(
    organisation: Organisation,
) -> None:
    async with staged(organisation, marker_seconds=0.01) as stage:
        await stage.commit()
        subscriber = stage.subscribe(wanted=Filter(chaincodes=["none"]))
        await subscriber.begin()
        await waits(stage)
        for _ in range(3):
            end = await stage.commit(stage.ledger.transaction())
        heard = [await subscriber.hear()]
        while heard[-1].position != end:
            heard.append(await subscriber.hear())
        assert not any(notice.HasField("transaction") for notice in heard)
        # As many as there were blocks, at most.
        assert len(heard) <= 3


async def test_position_does_not_move_back_for_who_read_further_by_itself(
    organisation: Organisation,
) -> None:
    async with staged(organisation, marker_seconds=0.05) as stage:
        await stage.commit()
        subscriber = stage.subscribe()
        await subscriber.begin()
        await waits(stage)
        await stage.commit(stage.ledger.transaction())
        # Another configuration: all read on by themselves, to see whether they still may.
        stage.channel.config = configuration(organisation)
        end = await stage.commit(stage.ledger.transaction())
        assert (await subscriber.until(end))[-1].HasField("transaction")
        await eventually(lambda: stage.head._marking is None)
        follows = stage.ledger.transaction()
        await stage.commit(follows)
        assert (await subscriber.hear()).transaction.txid == follows.txid


async def test_notices_to_many_are_counted_and_made_once(organisation: Organisation) -> None:
    async with staged(organisation) as stage:
        await stage.commit()
        many = [stage.subscribe() for _ in range(20)]
        for subscriber in many:
            await subscriber.begin()
        await waits(stage, 20)
        told = sample("eventhub_notices_total", kind="transaction")
        position = await stage.commit(stage.ledger.transaction())
        heard = {(await subscriber.hear()).SerializeToString() for subscriber in many}
        assert len(heard) == 1
        assert sample("eventhub_notices_total", kind="transaction") == told + 20
        notices = stage.channel.recent(position.block)
        assert notices is not None
        assert notices.notices.notice(0, payload=False, last=True) is notices.notices.notice(
            0, payload=False, last=True
        )


async def test_slow_reader_hurts_only_itself_and_misses_nothing(organisation: Organisation) -> None:
    # Little is kept, so that who falls behind is read to from the source.
    async with staged(organisation, recent_bytes=1 << 18) as stage:
        await stage.commit()
        slow = stage.subscribe(payload=True, options=NARROW)
        swift = stage.subscribe(payload=True)
        for subscriber in (slow, swift):
            await subscriber.begin()
        await waits(stage, 2)
        committed: list[str] = []
        for _ in range(30):
            block = [stage.ledger.transaction(payload=bytes(20_000)) for _ in range(3)]
            committed += [each.txid for each in block]
            await stage.commit(*block)
            assert await swift.events(3) == committed[-3:]
        (session,) = [each for each in stage.consumers if each.blocks_behind()]
        assert session.service is Service.SUBSCRIBE
        assert 0 < session.pending_bytes < 1 << 18
        assert await slow.events(len(committed)) == committed
        follows = stage.ledger.transaction()
        await stage.commit(follows)
        assert await slow.events(1) == [follows.txid]


async def test_what_waits_for_all_is_bounded(organisation: Organisation) -> None:
    async with staged(organisation, total_bytes=1 << 18, max_consumers=8) as stage:
        await stage.commit()
        committed = [stage.ledger.transaction(payload=bytes(30_000)) for _ in range(40)]
        await stage.commit(*committed)
        readers = [stage.subscribe(start=0, payload=True, options=NARROW) for _ in range(8)]
        await eventually(lambda: len(stage.consumers) == 8)
        # Half of it is for those who read the past, and each has a share to begin with.
        pending = []
        for _ in range(50):
            pending.append(sum(session.pending_bytes for session in stage.consumers))
            await asyncio.sleep(0)
        assert max(pending) <= 2 * (1 << 17)
        heard = await asyncio.gather(*(reader.events(40) for reader in readers))
        assert heard == 8 * [[each.txid for each in committed]]


@pytest.mark.parametrize(
    ("start", "code", "sentence"),
    [
        (
            7,
            grpc.StatusCode.OUT_OF_RANGE,
            "there is no block 7 of mychannel yet, the next one is 3",
        ),
        (
            Position(block=3),
            grpc.StatusCode.UNAVAILABLE,
            "HUB_BEHIND: the position is in block 3 of mychannel, and this hub has read 3 blocks",
        ),
        (
            Position(block=1, transaction=1),
            grpc.StatusCode.OUT_OF_RANGE,
            "the position is after transaction 1 of block 1 of mychannel, which has 1, counted",
        ),
        (
            Position(block=1, block_hash=b"other"),
            grpc.StatusCode.FAILED_PRECONDITION,
            "OTHER_LEDGER: the position is in block 1 of another ledger than the one that",
        ),
    ],
)
async def test_place_that_is_not_there_is_refused(
    stage: Stage, start: int | Position, code: grpc.StatusCode, sentence: str
) -> None:
    for _ in range(2):
        await stage.commit(stage.ledger.transaction())
    ended = await stage.subscribe(start=start).ended()
    assert ended[0] is code
    assert sentence in ended[1]


@pytest.mark.parametrize(
    ("wanted", "code", "sentence"),
    [
        (
            Filter(chaincodes=11 * ["cc"]),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "TOO_MANY_INTERESTS: the filter has 11 values, more than 10: ask for less, or raise "
            "peer.events.maxInterests",
        ),
        (
            Filter(chaincodes=[1024 * "x"], event_names=9 * [1000 * "y"]),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "TOO_MANY_INTERESTS: the values of the filter have 10024 bytes, more than 10000: ask "
            "for less, or raise peer.events.maxInterestBytes",
        ),
        (
            Filter(event_names=["a*b*c*d*e*f*g*h*i*"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "MESSAGE_REFUSED: the filter has 'a*b*c*d*e*f*g*h*i*', of more than 8 stars",
        ),
        (
            Filter(event_names=[""]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "MESSAGE_REFUSED: the filter has an empty value",
        ),
    ],
)
async def test_filter_that_may_not_be_is_refused(
    stage: Stage, wanted: Filter, code: grpc.StatusCode, sentence: str
) -> None:
    ended = await stage.subscribe(wanted=wanted).ended()
    assert ended[0] is code
    assert sentence in ended[1]


@pytest.mark.parametrize(
    ("request_", "code", "sentence"),
    [
        (b"\xff", grpc.StatusCode.INVALID_ARGUMENT, "is not a marshalled common.Envelope"),
        (b"", grpc.StatusCode.UNAUTHENTICATED, "the request is not signed"),
    ],
)
async def test_request_that_is_none_is_refused(
    stage: Stage, request_: bytes, code: grpc.StatusCode, sentence: str
) -> None:
    ended = await stage.subscribe(request=request_).ended()
    assert ended[0] is code
    assert sentence in ended[1]


async def test_request_that_would_be_kept_at_any_size_is_refused(stage: Stage) -> None:
    code, sentence = await stage.subscribe(padding=30_000).ended()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "more than the 26384 that peer.events.maxInterestBytes leaves" in sentence


async def test_request_bound_to_a_certificate_is_refused_where_none_is_shown(
    organisation: Organisation,
) -> None:
    async with staged(organisation, client_certificates=False) as stage:
        await stage.commit()
        code, sentence = await stage.subscribe().ended()
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "its connection shows none" in sentence
        assert await stage.subscribe(bound=False).begin()


async def test_filters_that_take_long_are_looked_at_over_many_turns(
    organisation: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "_EFFORT_A_TURN", 20)
    monkeypatch.setattr(head, "_EFFORT_A_BLOCK", 50)
    at_once = 0
    longest = 0
    matches = EventFilter.matches

    def look(wanted: EventFilter, kind: Kind) -> bool:
        nonlocal at_once, longest
        if not at_once:
            asyncio.get_running_loop().call_soon(turn)
        at_once += 1
        longest = max(longest, at_once)
        return matches(wanted, kind)

    def turn() -> None:
        nonlocal at_once
        at_once = 0

    async with staged(organisation) as stage:
        await stage.commit()
        wanted = Filter(event_names=[f"{number}*" for number in range(9)])
        subscriber = stage.subscribe(wanted=wanted)
        await subscriber.begin()
        await waits(stage)
        monkeypatch.setattr(EventFilter, "matches", look)
        # Few enough to be looked at at once for who waits, and then not.
        for count in (5, 30):
            committed = [stage.ledger.transaction(event=f"{number}") for number in range(count)]
            await stage.commit(*committed)
            told = [each.txid for number, each in enumerate(committed) if number != 9]
            assert await subscriber.events(len(told)) == told
            await waits(stage)
        assert longest == 5
        longest = 0
        again = stage.subscribe(start=2, wanted=wanted)
        await again.begin()
        assert await again.events(len(told)) == told
        assert longest == 2


async def test_request_must_be_bound_to_its_connection(stage: Stage) -> None:
    code, sentence = await stage.subscribe(bound=False).ended()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "set tls_cert_hash in its channel header" in sentence


async def test_unknown_channel_is_said(stage: Stage) -> None:
    code, sentence = await stage.subscribe(on="other").ended()
    assert code is grpc.StatusCode.NOT_FOUND
    assert sentence.startswith("CHANNEL_UNKNOWN: this hub has no channel 'other'")


async def test_channel_of_an_orderer_has_no_such_events(organisation: Organisation) -> None:
    async with staged(organisation, validated=False) as stage:
        await stage.commit()
        code, sentence = await stage.subscribe().ended()
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "NOT_VALIDATED: mychannel comes from an orderer, which does not say" in sentence


async def test_channel_whose_configuration_has_yet_to_come_is_waited_for(stage: Stage) -> None:
    stage.channel.config = None
    code, sentence = await stage.subscribe().ended()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "mychannel has not come from the source yet" in sentence


async def test_stranger_may_not_listen(stage: Stage, stranger: Organisation) -> None:
    code, sentence = await stage.subscribe(by=stranger.identity("eve")).ended()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert sentence.startswith("CHANNEL_FORBIDDEN: ")


async def test_member_of_any_organisation_of_the_channel_may_listen(
    organisation: Organisation,
) -> None:
    other = Organisation("Org2MSP")
    async with staged(organisation) as stage:
        await stage.commit()
        stage.channel.config = configuration(organisation, other)
        assert await stage.subscribe(by=other.identity("bob")).begin()


async def test_who_may_not_read_any_more_is_told_nothing_more(organisation: Organisation) -> None:
    other = Organisation("Org2MSP")
    async with staged(organisation) as stage:
        await stage.commit()
        stage.channel.config = configuration(organisation, other)
        stays, goes = stage.subscribe(), stage.subscribe(by=other.identity("bob"))
        for subscriber in (stays, goes):
            await subscriber.begin()
        await waits(stage, 2)
        stage.channel.config = configuration(organisation)
        committed = stage.ledger.transaction()
        await stage.commit(committed)
        assert await stays.events(1) == [committed.txid]
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await goes.call.read()
    assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "CHANNEL_FORBIDDEN: The identity is of the organisation 'Org2MSP'" in str(ended.value)


async def test_stream_ends_when_its_identity_expires(
    stage: Stage, organisation: Organisation
) -> None:
    user = organisation.identity("user", minutes=10)
    subscriber = stage.subscribe(by=user)
    await subscriber.begin()
    (session,) = stage.consumers
    assert session.expires_at == user.expires_at
    # As if it were ten minutes later.
    session.expires_at = datetime.now(UTC)
    code, sentence = await subscriber.ended()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert sentence.startswith("EXPIRED: ")


async def test_expired_identity_may_not_begin(stage: Stage, organisation: Organisation) -> None:
    code, sentence = await stage.subscribe(by=organisation.identity("user", minutes=-1)).ended()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "expired at" in sentence


async def test_block_that_no_source_gives_ends_the_stream_before_it(
    organisation: Organisation,
) -> None:
    async with staged(organisation, recent_bytes=1) as stage:
        committed = [stage.ledger.transaction() for _ in range(3)]
        await stage.commit()
        for each in committed:
            await stage.commit(each)
        stage.unavailable.add(2)
        subscriber = stage.subscribe(start=0)
        await subscriber.begin()
        assert await subscriber.events(1) == [committed[0].txid]
        code, sentence = await subscriber.ended()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert sentence.startswith("BLOCK_UNAVAILABLE: block 2 is not there")


async def test_event_that_is_too_large_ends_the_stream_by_name(organisation: Organisation) -> None:
    async with staged(organisation, max_send_bytes=10_000) as stage:
        await stage.commit()
        lean, fat = stage.subscribe(), stage.subscribe(payload=True)
        for subscriber in (lean, fat):
            await subscriber.begin()
        await waits(stage, 2)
        small, large = stage.ledger.transaction(), stage.ledger.transaction(payload=bytes(20_000))
        await stage.commit(small, large)
        assert await lean.events(2) == [small.txid, large.txid]
        assert await fat.events(1) == [small.txid]
        code, sentence = await fat.ended()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "EVENT_TOO_LARGE: an event for this client has 20" in sentence
        assert "subscribe without payload, or raise peer.events.maxSendMsgSize" in sentence


async def test_subscribers_count_among_the_consumers(organisation: Organisation) -> None:
    async with staged(organisation, max_consumers=1) as stage:
        await stage.commit()
        first = stage.subscribe(start=0, wanted=Filter(chaincodes=["cc"]))
        await first.begin()
        (session,) = stage.consumers
        assert session.identity == "Org1MSP/user"
        assert list(session.interests()) == ["mychannel from block 0: valid events of 'cc'"]
        code, sentence = await stage.subscribe().ended()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert sentence.startswith("TOO_MANY_CONSUMERS")
        await first.leave()
        await eventually(lambda: not len(stage.consumers))
        assert await stage.subscribe().begin()


async def test_fault_with_one_block_ends_streams_instead_of_leaving_it_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriber = stage.subscribe()
    await subscriber.begin()
    await waits(stage)

    def fail(*_: object) -> None:
        raise RuntimeError("as a mistake would")

    monkeypatch.setattr("event_hub.channels.block.BlockNotices", fail)
    await stage.commit(stage.ledger.transaction())
    code, sentence = await subscriber.ended()
    assert code is grpc.StatusCode.INTERNAL
    assert sentence.startswith("HUB_FAULT: ")
    monkeypatch.undo()
    assert await stage.subscribe(start=1).events(1)
