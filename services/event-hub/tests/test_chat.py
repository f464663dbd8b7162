"""What a client of Events/Chat sees."""

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from eventhouse import House, eventually, interest, sample
from organisation import Organisation
from structlog.testing import capture_logs

from event_hub.events import BLOCK, CHAINCODE, FILTEREDBLOCK, REJECTION
from event_hub.validation import Refused, ValidationConfig, Validator
from selvedge_protos.common import common_pb2
from selvedge_protos.msp import identities_pb2
from selvedge_protos.peer import events_pb2, transaction_pb2


async def test_registered_client_hears_of_blocks_without_read_write_sets(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.register(interest(BLOCK))
    committed = await house.ledger.commit(house.ledger.transaction())
    event = await client.hear()
    while event.block.header.number < committed.header.number:
        event = await client.hear()
    assert event.block.header == committed.header
    assert event.block.metadata == committed.metadata
    assert b"read-write set" not in event.block.SerializeToString()
    assert b"read-write set" in committed.SerializeToString()


async def test_each_event_type_is_fed(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.register(
        interest(CHAINCODE, "cc", "named"),
        interest(REJECTION),
        interest(FILTEREDBLOCK),
        interest(BLOCK),
    )
    delivered = sample("eventhub_events_delivered_total", type="CHAINCODE")
    valid = house.ledger.transaction()
    late = house.ledger.transaction(code=transaction_pb2.MVCC_READ_CONFLICT)
    await house.ledger.commit(valid, late)
    heard = [await client.hear()]
    while heard[-1].block.header.number < 1:
        heard.append(await client.hear())
    of_the_block = heard[-4:]

    chaincode, rejection, filtered, block = of_the_block
    assert chaincode.chaincode_event.tx_id == valid.txid
    assert chaincode.chaincode_event.payload == b"payload"
    assert "MVCC_READ_CONFLICT" in rejection.rejection.error_msg
    assert late.txid in rejection.rejection.error_msg
    assert len(rejection.rejection.tx.actions) == 1
    assert b"read-write set" not in rejection.rejection.tx.SerializeToString()
    codes = [tx.tx_validation_code for tx in filtered.filtered_block.filtered_transactions]
    assert codes == [transaction_pb2.VALID, transaction_pb2.MVCC_READ_CONFLICT]
    assert filtered.filtered_block.channel_id == "mychannel"
    assert block.block.header.number == 1
    assert sample("eventhub_events_delivered_total", type="CHAINCODE") == delivered + 1


async def test_wildcard_and_name_bring_an_event_once(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.register(interest(CHAINCODE, "cc"), interest(CHAINCODE, "cc", "named"))
    await house.ledger.commit(house.ledger.transaction(), house.ledger.transaction(event="other"))
    assert (await client.hear()).chaincode_event.event_name == "named"
    assert (await client.hear()).chaincode_event.event_name == "other"


async def test_interest_in_another_channel_brings_nothing(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.register(interest(CHAINCODE, "cc", on="other"))
    await client.register(interest(CHAINCODE, "cc2", on="mychannel"))
    await house.ledger.commit(house.ledger.transaction(), house.ledger.transaction("cc2"))
    assert (await client.hear()).chaincode_event.chaincode_id == "cc2"


async def test_unregistered_client_hears_no_more(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.register(interest(CHAINCODE, "cc", "named"), interest(CHAINCODE, "cc", "last"))
    await client.unregister(interest(CHAINCODE, "cc", "named"))
    ledger = house.ledger
    await ledger.commit(ledger.transaction(), ledger.transaction(event="last"))
    assert (await client.hear()).chaincode_event.event_name == "last"


@pytest.mark.parametrize(
    ("operation", "result", "arguments"),
    [
        ("register", "unknown_type", (events_pb2.REGISTER,)),
        ("register", "no_chaincode", (CHAINCODE,)),
        ("register", "no_chaincode", (CHAINCODE, "")),
        ("unregister", "not_registered", (BLOCK,)),
        ("unregister", "no_chaincode", (CHAINCODE,)),
    ],
)
async def test_bad_interest_is_echoed_and_counted(
    house: House, operation: str, result: str, arguments: tuple[Any, ...]
) -> None:
    hub = await house.hub()
    client = house.client(hub)
    labels = {"operation": operation, "result": result}
    before = sample("eventhub_registrations_total", **labels)
    await getattr(client, operation)(interest(*arguments))
    assert sample("eventhub_registrations_total", **labels) == before + 1


async def test_registering_twice_is_echoed_and_brings_events_once(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    labels = {"operation": "register", "result": "already_registered"}
    before = sample("eventhub_registrations_total", **labels)
    wanted = interest(CHAINCODE, "cc")
    await client.register(wanted)
    await client.register(wanted)
    assert sample("eventhub_registrations_total", **labels) == before + 1
    ledger = house.ledger
    await ledger.commit(ledger.transaction(event="a"), ledger.transaction(event="b"))
    assert [(await client.hear()).chaincode_event.event_name for _ in range(2)] == ["a", "b"]


async def test_event_without_content_is_echoed(house: House) -> None:
    hub = await house.hub()
    await house.client(hub).confirmed(events_pb2.Event())


async def test_half_close_ends_ok_and_removes_the_interests(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    before = sample("eventhub_consumers_closed_total", reason="HALF_CLOSED")
    await client.register(interest(BLOCK), interest(CHAINCODE, "cc"))
    assert sample("eventhub_interests") == 2
    assert sample("eventhub_consumers", kind="CHAT") == 1
    await client.call.done_writing()
    assert await client.refused() == (grpc.StatusCode.OK, "")
    await eventually(lambda: sample("eventhub_interests") == 0)
    assert sample("eventhub_consumers", kind="CHAT") == 0
    assert sample("eventhub_consumers_closed_total", reason="HALF_CLOSED") == before + 1


async def test_vanished_client_leaves_no_interests(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    before = sample("eventhub_consumers_closed_total", reason="CLIENT_GONE")
    await client.register(interest(BLOCK))
    client.call.cancel()
    await eventually(lambda: sample("eventhub_interests") == 0)
    assert sample("eventhub_consumers_closed_total", reason="CLIENT_GONE") == before + 1


async def test_refused_client_leaves_no_interests(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.register(interest(BLOCK))
    await client.say(events_pb2.Event(block=common_pb2.Block()))
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "this one is a block" in sentence
    await eventually(lambda: sample("eventhub_interests") == 0)


async def test_too_many_interests_end_the_stream_with_the_bound_named(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_MAXINTERESTS="2")
    client = house.client(hub)
    await client.register(interest(BLOCK), interest(REJECTION))
    await client.say(
        events_pb2.Event(register=events_pb2.Register(events=[interest(FILTEREDBLOCK)]))
    )
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("TOO_MANY_INTERESTS: ")
    assert "peer.events.maxInterests" in sentence


@pytest.mark.parametrize("operation", ["register", "unregister"])
async def test_message_with_more_interests_than_one_may_hold_is_refused_unread(
    house: House, operation: str
) -> None:
    """The bound is on what the hub does for one message, whatever becomes of its interests."""
    hub = await house.hub()
    client = house.client(hub)
    bad = [interest(CHAINCODE)] * 20_000
    message = events_pb2.Event(register=events_pb2.Register(events=bad))
    if operation == "unregister":
        message = events_pb2.Event(unregister=events_pb2.Unregister(events=bad))
    labels = {"operation": operation, "result": "too_many"}
    before = sample("eventhub_registrations_total", **labels)
    closed = sample("eventhub_consumers_closed_total", reason="TOO_MANY_INTERESTS")
    with capture_logs() as logged:
        await client.say(message)
        code, sentence = await client.refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("TOO_MANY_INTERESTS: ")
    assert "20000" in sentence
    assert "peer.events.maxInterests" in sentence
    assert sample("eventhub_registrations_total", **labels) == before + 20_000
    assert sample("eventhub_consumers_closed_total", reason="TOO_MANY_INTERESTS") == closed + 1
    assert len(logged) < 10


@pytest.mark.parametrize("operation", ["register", "unregister"])
async def test_refused_interests_are_logged_once_a_message(house: House, operation: str) -> None:
    hub = await house.hub()
    client = house.client(hub)
    wanted = [interest(CHAINCODE)] * 60 + [interest(events_pb2.REGISTER)] * 30
    with capture_logs() as logged:
        await getattr(client, operation)(*wanted)
    (line,) = [line for line in logged if line["event"].startswith("interest")]
    assert line["event"] == f"interests not {operation}ed"
    assert line["refused"] == {"no_chaincode": 60, "unknown_type": 30}
    assert "chaincode_reg_info" in line["first"]


async def test_too_many_consumers_are_refused_with_the_bound_named(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_MAXCONSUMERS="1")
    first = house.client(hub)
    await first.register(interest(BLOCK))
    code, sentence = await house.client(hub).refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("TOO_MANY_CONSUMERS: ")


async def test_stopping_hub_says_farewell(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.register(interest(BLOCK))
    await hub.stop()
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert sentence.startswith("SHUTTING_DOWN: ")


async def test_timestamp_within_the_window_is_accepted_and_outside_refused(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    near, far = events_pb2.Event(), events_pb2.Event()
    near.timestamp.FromDatetime(datetime.now(UTC) - timedelta(minutes=14))
    far.timestamp.FromDatetime(datetime.now(UTC) + timedelta(minutes=16))
    await client.confirmed(near)
    await client.say(far)
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "peer.events.timewindow" in sentence


async def test_tls_binding_has_to_be_that_of_the_connection(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.confirmed(events_pb2.Event(tls_cert_hash=client.tls_cert_hash))
    await client.say(events_pb2.Event(tls_cert_hash=b"another"))
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "tls_cert_hash" in sentence


async def test_tls_binding_is_not_looked_at_where_nobody_is_asked_for_a_certificate(
    house: House,
) -> None:
    hub = await house.hub(PEER_TLS_CLIENTAUTHREQUIRED="false")
    client = house.client(hub)
    await client.confirmed(events_pb2.Event())
    await client.confirmed(events_pb2.Event(tls_cert_hash=client.tls_cert_hash))


async def test_tls_binding_to_a_certificate_is_refused_where_none_is_shown(house: House) -> None:
    client = house.client(await house.hub())
    validator = Validator(house.organisation.msp, ValidationConfig(900, False))
    validator.validate(client.sign(events_pb2.Event()), {})
    bound = client.sign(events_pb2.Event(tls_cert_hash=client.tls_cert_hash))
    with pytest.raises(Refused, match="this connection shows no TLS client certificate"):
        validator.validate(bound, {})


async def test_names_of_all_interests_are_bounded_together(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_MAXINTERESTBYTES="2KB")
    client = house.client(hub)
    long = [interest(CHAINCODE, "cc", name=each * 900) for each in "abc"]
    await client.register(*long[:2])
    await client.unregister(long[0])
    await client.register(long[2])
    await client.say(events_pb2.Event(register=events_pb2.Register(events=long[:1])))
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "TOO_MANY_INTERESTS: the names in the interests of a consumer may have" in sentence
    assert "raise peer.events.maxInterestBytes" in sentence


async def test_tls_binding_can_be_required(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_REQUIRETLSBINDING="true")
    client = house.client(hub)
    await client.confirmed(events_pb2.Event(tls_cert_hash=client.tls_cert_hash))
    await client.say(events_pb2.Event())
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "requireTlsBinding" in sentence


async def test_tampered_signature_is_refused_with_a_sentence(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    signed = events_pb2.SignedEvent.FromString(client.sign(events_pb2.Event()))
    other = events_pb2.Event(creator=client.identity.serialized, register=events_pb2.Register())
    signed.eventBytes = other.SerializeToString()
    await client.say(signed.SerializeToString())
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "signature" in sentence
    assert sentence.startswith("MESSAGE_REFUSED: ")


async def test_expired_identity_is_refused(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub, house.organisation.identity("late", minutes=-10))
    await client.say(events_pb2.Event())
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "expired" in sentence


async def test_stream_ends_when_the_identity_expires_that_spoke_last(house: House) -> None:
    hub = await house.hub()
    short, renewed = (
        house.client(hub, house.organisation.identity(name, minutes=3 / 60))
        for name in ("short", "renewed")
    )
    before = sample("eventhub_consumers_closed_total", reason="EXPIRED")
    for client in (short, renewed):
        await client.register(interest(CHAINCODE, "cc"))
    renewed.identity = house.organisation.identity("renewed")
    await renewed.confirmed(events_pb2.Event())
    code, sentence = await short.refused()
    assert datetime.now(UTC) > short.identity.expires_at
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert sentence.startswith("EXPIRED: ")
    assert short.identity.expires_at.isoformat() in sentence
    await eventually(lambda: sample("eventhub_interests") == 1)
    assert sample("eventhub_consumers_closed_total", reason="EXPIRED") == before + 1
    await house.ledger.commit(house.ledger.transaction())
    assert (await renewed.hear()).chaincode_event.event_name == "named"


async def test_identity_of_another_organisation_is_refused(
    house: House, stranger: Organisation
) -> None:
    hub = await house.hub()
    client = house.client(hub, stranger.identity("user"))
    await client.say(events_pb2.Event())
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "not a member of Org1MSP" in sentence


@pytest.mark.parametrize("message", [b"\xff\xff", b"\x12\x02\xff\xff"])
async def test_bytes_that_do_not_parse_are_refused(house: House, message: bytes) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.say(message)
    code, _ = await client.refused()
    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("creator", [b"\xff", b"\x0a\x07Org1MSP"])
async def test_creator_that_does_not_parse_is_refused(house: House, creator: bytes) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.say(events_pb2.Event(creator=creator))
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "creator" in sentence


async def test_creator_of_a_megabyte_is_refused_at_once(house: House) -> None:
    """Whatever it is filled with: it is not looked at."""
    hub = await house.hub()
    mspid = identities_pb2.SerializedIdentity(mspid="x" * 900_000).SerializeToString()
    pem = identities_pb2.SerializedIdentity(
        mspid="Org1MSP", id_bytes=b"-----BEGIN CERTIFICATE-----\n" * 30_000
    ).SerializeToString()
    for creator in (b"\x0a" * 900_000, mspid, pem):
        client = house.client(hub)
        message = client.sign(events_pb2.Event(creator=creator))
        with capture_logs() as logged:
            await client.say(message)
            code, sentence = await client.refused()
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "creator" in sentence
        assert len(sentence) < 1000
        assert len(str(logged)) < 5000


async def test_refusals_of_one_client_are_told_once_and_counted(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    with capture_logs() as logged:
        for _ in range(50):
            await client.register(interest(CHAINCODE))
        client.call.cancel()
        await eventually(lambda: sample("eventhub_consumers", kind="CHAT") == 0)
        told = [line for line in logged if "refused" in line]
    assert [line["refused"] for line in told] == [{"no_chaincode": 1}, {"no_chaincode": 49}]


async def test_old_identity_with_empty_pem_type_is_accepted(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    old = identities_pb2.SerializedIdentity.FromString(client.identity.serialized)
    old.id_bytes = old.id_bytes.replace(b" CERTIFICATE-----", b" -----")
    assert old.id_bytes.startswith(b"-----BEGIN -----")
    await client.confirmed(events_pb2.Event(creator=old.SerializeToString()))


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        ("expiry timestamp binding membership signature", "expired"),
        ("timestamp binding membership signature", "timestamp"),
        ("binding membership signature", "tls_binding"),
        ("membership signature", "membership"),
        ("signature", "signature"),
    ],
)
async def test_first_failing_check_decides(
    house: House, stranger: Organisation, wrong: str, check: str
) -> None:
    """In the order of events/producer/handler.go of 1.2."""
    hub = await house.hub()
    signer = stranger if "membership" in wrong else house.organisation
    identity = signer.identity("user", minutes=-10 if "expiry" in wrong else 30)
    client = house.client(hub, identity)
    event = events_pb2.Event(tls_cert_hash=client.tls_cert_hash)
    event.timestamp.FromDatetime(datetime.now(UTC))
    if "timestamp" in wrong:
        event.timestamp.FromDatetime(datetime.now(UTC) - timedelta(hours=1))
    if "binding" in wrong:
        event.tls_cert_hash = b"another"
    signed = events_pb2.SignedEvent.FromString(client.sign(event))
    signed.signature = b"nothing"
    before = sample("eventhub_refused_messages_total", check=check)
    await client.say(signed.SerializeToString())
    _, sentence = await client.refused()
    assert sentence.startswith("MESSAGE_REFUSED: ")
    assert sample("eventhub_refused_messages_total", check=check) == before + 1


async def test_registration_for_nothing_is_echoed(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.register()
    await client.unregister()


async def test_event_with_fields_that_the_hub_does_not_know_is_echoed_as_it_came(
    house: House,
) -> None:
    """Clients compare the confirmation with what they sent."""
    hub = await house.hub()
    client = house.client(hub)
    event = events_pb2.Event(creator=client.identity.serialized)
    event.register.events.append(interest(BLOCK, on="elsewhere"))
    # A field of a later release, and one that is empty.
    data = event.SerializeToString() + b"\xfa\x7f\x03new" + b"\x4a\x00"
    signed = events_pb2.SignedEvent(eventBytes=data, signature=client.identity.sign(data))
    await client.say(signed.SerializeToString())
    assert await client.hear_bytes() == data
