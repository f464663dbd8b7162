"""Clients that mean harm: each is refused or closed with a reason, and nobody else notices."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from eventhouse import Client, House, eventually, interest, sample
from hub_process import hub_process
from organisation import MSPID, Organisation

from event_hub.events import BLOCK, CHAINCODE, FILTEREDBLOCK
from selvedge_common.protoutil import seek
from selvedge_protos.peer import events_pb2

MEGABYTE = 1024 * 1024
NARROW = (("grpc.http2.lookahead_bytes", 65536), ("grpc.http2.bdp_probe", 0))
# How many points the curve P-256 has.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


async def listens_on(house: House, witness: Client, name: str) -> None:
    """Whoever listened before hears the next event."""
    await house.ledger.commit(house.ledger.transaction(event=name))
    assert (await witness.hear()).chaincode_event.event_name == name


# Who they say they are


async def test_members_name_over_a_signature_of_somebody_else_is_refused(
    house: House, stranger: Organisation
) -> None:
    hub = await house.hub()
    witness, client = house.client(hub), house.client(hub)
    await witness.register(interest(CHAINCODE, "cc"))
    forger, event = stranger.identity("forger"), events_pb2.Event()
    event.creator = client.identity.serialized
    signed = events_pb2.SignedEvent(eventBytes=event.SerializeToString())
    signed.signature = forger.sign(signed.eventBytes)
    await client.say(signed.SerializeToString())
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert sentence.startswith("MESSAGE_REFUSED: ")
    assert "signature" in sentence
    await listens_on(house, witness, "undisturbed")


async def test_second_form_of_a_genuine_signature_is_refused(house: House) -> None:
    """Anybody can make it of the first one, so it says nothing of who sent it."""
    hub = await house.hub()
    client = house.client(hub)
    signed = events_pb2.SignedEvent.FromString(client.sign(events_pb2.Event()))
    r, s = decode_dss_signature(signed.signature)
    signed.signature = encode_dss_signature(r, ORDER - s)
    await client.say(signed.SerializeToString())
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "upper half" in sentence


async def test_root_of_the_organisation_is_no_creator(
    house: House, organisation: Organisation
) -> None:
    hub = await house.hub()
    client = house.client(hub, organisation.identities.as_identity(MSPID))
    await client.say(events_pb2.Event())
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "not a member of Org1MSP" in sentence


# What others have said before


def registration(tls_cert_hash: bytes = b"") -> events_pb2.Event:
    register = events_pb2.Register(events=[interest(CHAINCODE, "cc")])
    event = events_pb2.Event(register=register, tls_cert_hash=tls_cert_hash)
    event.timestamp.FromDatetime(datetime.now(UTC))
    return event


async def test_recorded_registration_is_of_no_use_on_another_connection(house: House) -> None:
    hub = await house.hub()
    honest, thief = house.client(hub), house.client(hub)
    recorded = honest.sign(registration(honest.tls_cert_hash))
    await honest.say(recorded)
    await honest.hear()
    await thief.say(recorded)
    code, sentence = await thief.refused()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "tls_cert_hash" in sentence
    await honest.confirmed(events_pb2.Event())


@pytest.mark.parametrize("required", ["true", "false"])
async def test_recorded_registration_without_binding_counts_only_where_none_is_required(
    house: House, required: str
) -> None:
    """As in Fabric: within the time window. Who records it needs a certificate of the TLS root."""
    hub = await house.hub(PEER_EVENTS_REQUIRETLSBINDING=required)
    honest, thief = house.client(hub), house.client(hub)
    recorded = honest.sign(registration())
    await thief.say(recorded)
    if required == "false":
        assert (await thief.hear()).HasField("register")
        return
    code, sentence = await thief.refused()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "requireTlsBinding" in sentence


@pytest.mark.parametrize("minutes", [-16, 16])
async def test_recorded_registration_is_of_no_use_outside_of_the_time_window(
    house: House, minutes: int
) -> None:
    hub = await house.hub()
    client = house.client(hub)
    event = registration()
    event.timestamp.FromDatetime(datetime.now(UTC) + timedelta(minutes=minutes))
    before = sample("eventhub_refused_messages_total", check="timestamp")
    await client.say(event)
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "peer.events.timewindow" in sentence
    assert sample("eventhub_refused_messages_total", check="timestamp") == before + 1


# What they ask for


async def test_ten_thousand_interests_one_after_another_end_at_the_bound(house: House) -> None:
    hub = await house.hub()
    witness, client = house.client(hub), house.client(hub)
    await witness.register(interest(CHAINCODE, "cc"))
    for start in range(0, 100, 50):
        await client.register(*(interest(CHAINCODE, f"cc{n}") for n in range(start, start + 50)))
    assert sample("eventhub_interests") == 101
    await client.say(
        events_pb2.Event(
            register=events_pb2.Register(
                events=[interest(CHAINCODE, f"cc{n}") for n in range(100, 200)]
            )
        )
    )
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("TOO_MANY_INTERESTS: ")
    await eventually(lambda: sample("eventhub_interests") == 1)
    await listens_on(house, witness, "undisturbed")


@pytest.mark.parametrize(
    ("start", "code", "reason"),
    [
        ("mychannel=" + "9" * 12_000, grpc.StatusCode.INVALID_ARGUMENT, "START_BLOCK_MALFORMED"),
        (
            ",".join(f"c{n}=0" for n in range(1500)),
            grpc.StatusCode.NOT_FOUND,
            "CHANNEL_UNKNOWN",
        ),
        (",".join(["mychannel=0"] * 1000), grpc.StatusCode.INVALID_ARGUMENT, "twice"),
    ],
    ids=["a huge number", "many channels", "one channel many times"],
)
async def test_huge_start_blocks_are_refused_in_a_sentence(
    house: House, start: str, code: grpc.StatusCode, reason: str
) -> None:
    hub = await house.hub()
    client = house.client(hub, start=start)
    ended, sentence = await client.refused()
    assert ended is code
    assert reason in sentence
    assert len(sentence) < 500
    await eventually(lambda: sample("eventhub_consumers", kind="CHAT") == 0)


async def test_start_blocks_above_the_bound_on_metadata_do_not_reach_the_hub(
    house: House,
) -> None:
    hub = await house.hub()
    client = house.client(hub, start=",".join(f"channel{n}=0" for n in range(20_000)))
    code, _ = await client.refused()
    assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    await house.client(hub).confirmed(events_pb2.Event())


# How they take what they asked for


async def test_who_opens_a_stream_and_says_nothing_loses_its_place(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seek, "FIRST_REQUEST_SECONDS", 0.3)
    hub = await house.hub()
    silent, speaking = house.client(hub), house.client(hub)
    before = sample("eventhub_consumers_closed_total", reason="NO_REQUEST")
    await speaking.confirmed(events_pb2.Event())
    code, sentence = await silent.refused()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert sentence.startswith("NO_REQUEST: ")
    assert sample("eventhub_consumers_closed_total", reason="NO_REQUEST") == before + 1
    await speaking.confirmed(events_pb2.Event())


async def test_one_client_cannot_take_all_places(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_MAXCONSUMERS="4")
    greedy = house.client(hub)
    await greedy.confirmed(events_pb2.Event())
    second = greedy.another_stream()
    await second.confirmed(events_pb2.Event())
    code, sentence = await greedy.another_stream().refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("TOO_MANY_CONSUMERS: 2 streams of this client's certificate")
    await house.client(hub).confirmed(events_pb2.Event())
    second.call.cancel()
    await eventually(lambda: sample("eventhub_consumers", kind="CHAT") == 2)
    await greedy.another_stream().confirmed(events_pb2.Event())


async def test_message_above_the_limit_ends_its_stream_by_a_bound_of_the_transport(
    house: House,
) -> None:
    hub = await house.hub(PEER_EVENTS_MAXRECVMSGSIZE="64KB")
    client = house.client(hub)
    before = sample("eventhub_consumers_closed_total", reason="TRANSPORT_BOUND")
    await client.say(b"x" * 70_000)
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "peer.events.maxRecvMsgSize" in sentence
    await eventually(
        lambda: sample("eventhub_consumers_closed_total", reason="TRANSPORT_BOUND") == before + 1
    )


@pytest.mark.timeout(180)
async def test_thousand_replays_at_once_stay_within_their_room_and_disturb_nobody(
    house: House,
) -> None:
    """All from block 0, of clients that read nothing."""
    hub = await house.hub(
        PEER_EVENTS_OUTBOX_TOTALBYTES="16MB",
        PEER_EVENTS_MAXCONSUMERS="3000",
    )
    ledger, payload = house.ledger, b"x" * 2000

    async def commit(number: int) -> None:
        names = [f"{number}.{n}" for n in range(5)]
        await ledger.commit(*(ledger.transaction(event=n, payload=payload) for n in names))

    for number in range(1, 61):
        await commit(number)
    await eventually(lambda: sample("eventhub_source_height", channel="mychannel") == 61)
    witness = house.client(hub)
    await witness.register(interest(CHAINCODE, "cc"))
    hoarders = [house.client(hub, options=NARROW, start="mychannel=0") for _ in range(5)]
    streams = [*hoarders, *(each.another_stream() for each in hoarders for _ in range(199))]
    await asyncio.gather(*(stream.register(interest(CHAINCODE, "cc")) for stream in streams))
    await eventually(lambda: sample("eventhub_outbox_bytes") > 6 * MEGABYTE)
    # Who listens, and who reads the past, goes on as if they were not there.
    reader = house.client(hub, start="mychannel=1")
    await reader.register(interest(CHAINCODE, "cc"))
    for number in range(1, 71):
        if number > 60:
            await commit(number)
            for n in range(5):
                assert (await witness.hear()).chaincode_event.event_name == f"{number}.{n}"
        for n in range(5):
            assert (await reader.hear()).chaincode_event.event_name == f"{number}.{n}"
        assert sample("eventhub_outbox_bytes") < 16 * MEGABYTE
    for client in hoarders:
        await client.close()
    await eventually(lambda: sample("eventhub_consumers", kind="CHAT") == 2)
    await eventually(lambda: sample("eventhub_replays") == 0)
    await listens_on(house, witness, "undisturbed")


@pytest.mark.timeout(180)
async def test_hub_does_not_grow_by_clients_that_never_read(house: House) -> None:
    """A hundred megabytes of events for fifty who read none, of which little may wait."""
    async with hub_process(
        house,
        PEER_EVENTS_OUTBOX_MAXBYTES="4MB",
        PEER_EVENTS_OUTBOX_TOTALBYTES="16MB",
        PEER_EVENTS_RECENTBYTES="4MB",
        PEER_EVENTS_BUFFERBYTES="4MB",
        SOURCE_HISTORYBYTES="1MB",
    ) as hub:
        await hub.until_metric("eventhub_source_height", 1)
        reader = house.client(hub.address)
        connections = [house.client(hub.address, options=NARROW) for _ in range(5)]
        stuck = [*connections, *(each.another_stream() for each in connections for _ in range(9))]
        for client in stuck:
            await client.register(interest(CHAINCODE, "cc"), interest(BLOCK))
        await reader.register(interest(FILTEREDBLOCK))
        before = most = hub.resident_bytes
        ledger, payload = house.ledger, b"x" * MEGABYTE
        for number in range(1, 51):
            await ledger.commit(ledger.transaction(payload=payload))
            assert (await reader.hear()).filtered_block.number == number
            most = max(most, hub.resident_bytes)
        # Beside what may wait, a block is parsed and its events are made.
        assert most - before < (16 + 4 + 4 + 1 + 24) * MEGABYTE
        closed = await hub.metric('eventhub_consumers_closed_total{reason="SLOW_CONSUMER"}')
        assert closed == len(stuck)
        assert await hub.metric("eventhub_consumers{") == 1


async def test_registering_in_a_loop_without_reading_holds_up_nobody(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_OUTBOX_MAXEVENTS="20", PEER_EVENTS_MAXINTERESTBYTES="64KB")
    witness, client = house.client(hub), house.client(hub, options=NARROW)
    await witness.register(interest(CHAINCODE, "cc"))
    before = sample("eventhub_consumers_closed_total", reason="SLOW_CONSUMER")
    names = [interest(CHAINCODE, f"{n:02}" * 250) for n in range(50)]
    there = client.sign(events_pb2.Event(register=events_pb2.Register(events=names)))
    back = client.sign(events_pb2.Event(unregister=events_pb2.Unregister(events=names)))

    async def go_round() -> None:
        while True:
            await client.say(there)
            await client.say(back)

    going = asyncio.create_task(go_round())
    number = 0
    while sample("eventhub_consumers_closed_total", reason="SLOW_CONSUMER") == before:
        number += 1
        await listens_on(house, witness, f"{number}")
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    await eventually(lambda: sample("eventhub_interests") == 1)
    assert number > 0
