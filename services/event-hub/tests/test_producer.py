"""Programs that publish events of their own."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from eventhouse import EOF, PATIENCE, House, Running, eventually, interest, listening, sample
from organisation import Organisation
from structlog.testing import capture_logs

from event_hub.consumers import Consumers
from event_hub.events import CHAINCODE
from event_hub.interests import Interests
from event_hub.outbox import OutboxConfig
from event_hub.processor import Processor, Publication
from event_hub.producer import LOGGED, URI, Producer, add_producer
from selvedge_common.comm import GRPCServer, ServerConfig, channel
from selvedge_common.protoutil import seek
from selvedge_protos.peer import chaincode_event_pb2, events_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2_grpc import ProducerStub

NEWS = "news"
TRANSPORTS = pytest.mark.parametrize("transport", ["native", "grpcio"])


def request(
    name: str = "storm", on: str = NEWS, chaincode: str = "", payload: bytes = b"payload"
) -> event_hub_pb2.PublishRequest:
    return event_hub_pb2.PublishRequest(
        channel=on,
        event=chaincode_event_pb2.ChaincodeEvent(
            chaincode_id=chaincode, event_name=name, payload=payload
        ),
    )


def dialled(house: House, hub: Running, uri: str | None = URI + "weather") -> grpc.aio.Channel:
    certificate, key = house.organisation.tls_pair("weather", uri)
    return channel(
        hub.address,
        root_cas=house.organisation.tls.pem,
        certificate=certificate,
        key=key,
        options=[("grpc.use_local_subchannel_pool", 1)],
    )


async def publish(
    house: House,
    hub: Running,
    requests: Iterable[event_hub_pb2.PublishRequest],
    uri: str | None = URI + "weather",
) -> event_hub_pb2.PublishSummary:
    async with dialled(house, hub, uri) as opened, asyncio.timeout(PATIENCE):
        summary: event_hub_pb2.PublishSummary = await ProducerStub(opened).Publish(iter(requests))
        return summary


@TRANSPORTS
async def test_who_listens_on_the_channel_hears_of_published_events(
    house: House, transport: str
) -> None:
    hub = await house.hub(TRANSPORT_KIND=transport)
    client = house.client(hub)
    await client.register(interest(CHAINCODE, "weather", on=NEWS))
    summary = await publish(house, hub, [request("storm"), request("sun", chaincode="weather")])
    assert (summary.accepted, list(summary.dropped)) == (2, [])
    heard = [(await client.hear()).chaincode_event for _ in range(2)]
    assert [(event.chaincode_id, event.event_name) for event in heard] == [
        ("weather", "storm"),
        ("weather", "sun"),
    ]
    assert heard[0].payload == b"payload"


async def test_who_listens_on_every_channel_hears_of_ledgers_alone(house: House) -> None:
    """A producer may have the name of a chaincode; its events must not pass for a ledger's."""
    hub = await house.hub()
    everywhere, there = house.client(hub), house.client(hub)
    await everywhere.register(interest(CHAINCODE, "asset"))
    await there.register(interest(CHAINCODE, "asset", on=NEWS))
    assert (await publish(house, hub, [request("made")], URI + "asset")).accepted == 1
    assert (await there.hear()).chaincode_event.event_name == "made"
    await house.ledger.commit(house.ledger.transaction("asset", "real"))
    assert (await everywhere.hear()).chaincode_event.event_name == "real"


async def test_no_producer_speaks_for_a_ledger(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub)
    await client.register(interest(CHAINCODE, "weather", on="mychannel"))
    summary = await publish(house, hub, [request(on="mychannel"), request(on="mychannel")])
    (dropped,) = summary.dropped
    assert summary.accepted == 0
    assert dropped.reason == event_hub_pb2.Dropped.CHANNEL_OF_A_SOURCE
    assert dropped.number == 2
    assert "channel mychannel is a ledger's" in dropped.first


async def test_no_producer_has_a_channel_that_is_taken_for_a_ledgers(house: House) -> None:
    hub = await house.hub()
    summary = await publish(house, hub, [request(on="MyChannel"), request(on="mychannel2")])
    (dropped,) = summary.dropped
    assert (summary.accepted, dropped.number) == (1, 1)
    assert dropped.reason == event_hub_pb2.Dropped.CHANNEL_OF_A_SOURCE
    assert dropped.first == (
        "channel MyChannel differs only in the case of letters from mychannel, which is a ledger's"
        ": publish on a channel of your own"
    )


async def test_producers_do_not_flood_the_log() -> None:
    """However many streams they open: a line a minute for each of them and each reason."""
    processor = Processor(
        Interests(1), Consumers(1, OutboxConfig(1, 1000, 1000), 60, 1000), 10, 1000, 0
    )
    now = 0.0
    producer = Producer(
        processor, ["mychannel"], max_streams=1, max_event_bytes=1000, clock=lambda: now
    )
    tomorrow = datetime.now(UTC) + timedelta(days=1)

    async def publish(at: float, name: str, on: str, times: int = 1) -> None:
        async def requests() -> AsyncIterator[event_hub_pb2.PublishRequest]:
            for _ in range(times):
                yield request(on=on)

        nonlocal now
        now = at
        summary = await producer._take_all(requests(), name, tomorrow)
        assert [dropped.number for dropped in summary.dropped] == [times]

    with capture_logs() as logged:
        for moment in (0.0, 1.0, 59.9):
            await publish(moment, "weather", "mychannel", times=2)
        await publish(59.9, "other", "mychannel")
        await publish(59.9, "weather", "no/name")
        await publish(60.0, "weather", "mychannel")
        # So many that the one before is not remembered any more.
        for number in range(LOGGED):
            await publish(60.0, f"producer{number}", "no/name")
        await publish(60.0, "weather", "mychannel")
    told = [(each["producer"], each["dropped"]) for each in logged]
    assert told[:4] == [("weather", 1), ("other", 1), ("weather", 1), ("weather", 6)]
    assert told[4 + LOGGED :] == [("weather", 1)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (request(on="no/name"), "names no channel"),
        (request(on=""), "names no channel"),
        (request(chaincode="other"), "names 'other' as its chaincode"),
        (request(name=""), "needs an event_name of 1 to"),
        (request(name=2000 * "x"), "needs an event_name of 1 to"),
    ],
)
async def test_what_is_wrong_with_an_event_is_told_and_the_others_are_taken(
    house: House, wrong: event_hub_pb2.PublishRequest, words: str
) -> None:
    hub = await house.hub()
    before = sample("eventhub_publications_refused_total", reason="malformed")
    summary = await publish(house, hub, [request(), wrong, request()])
    (dropped,) = summary.dropped
    assert summary.accepted == 2
    assert dropped.reason == event_hub_pb2.Dropped.MALFORMED
    assert words in dropped.first
    assert sample("eventhub_publications_refused_total", reason="malformed") == before + 1


async def test_a_full_buffer_drops_and_says_so(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The buffer has one place, and what comes before is on its way to a consumer waited for."""
    distribute, waiting, go_on = Processor._distribute, asyncio.Event(), asyncio.Event()

    async def wait_first(processor: Processor, publication: Publication) -> None:
        waiting.set()
        await go_on.wait()
        await distribute(processor, publication)

    monkeypatch.setattr(Processor, "_distribute", wait_first)
    hub = await house.hub(PEER_EVENTS_BUFFERSIZE="1", PEER_EVENTS_TIMEOUT="-1ms")
    await waiting.wait()  # with the source's first block
    summary = await publish(house, hub, [request() for _ in range(50)])
    go_on.set()
    assert summary.accepted == 1
    (dropped,) = summary.dropped
    assert (dropped.number, dropped.reason) == (49, event_hub_pb2.Dropped.BUFFER_FULL)
    assert dropped.first.startswith("could not send the blocking event")


async def test_an_event_that_no_client_may_be_sent_is_dropped(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_MAXSENDMSGSIZE="1KB")
    summary = await publish(house, hub, [request(payload=b"x" * 2000)])
    assert [dropped.reason for dropped in summary.dropped] == [event_hub_pb2.Dropped.TOO_LARGE]


@pytest.mark.parametrize("uri", [None, "selvedge://chaincode/weather"])
async def test_only_producers_publish(house: House, uri: str | None) -> None:
    hub = await house.hub()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await publish(house, hub, [request()], uri)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "selvedge ca issue --producer NAME" in str(refused.value.details())


async def test_producers_are_as_many_as_may_be(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_MAXPRODUCERS="1")
    gate = asyncio.Event()

    async def slowly() -> AsyncIterator[event_hub_pb2.PublishRequest]:
        yield request()
        await gate.wait()

    async with dialled(house, hub) as opened:
        first = ProducerStub(opened).Publish(slowly())
        await eventually(lambda: sample("eventhub_producers") == 1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await publish(house, hub, [request()])
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "raise peer.events.maxProducers" in str(refused.value.details())
        gate.set()
        assert (await first).accepted == 1
    await eventually(lambda: sample("eventhub_producers") == 0)


async def test_a_producer_whose_certificate_expires_is_stopped(organisation: Organisation) -> None:
    server = GRPCServer("127.0.0.1:0", ServerConfig(secure=listening(organisation)))
    consumers = Consumers(1, OutboxConfig(1, 1000, 1000), 60, 1000)
    processor = Processor(Interests(1), consumers, 10, 1000, 0)
    moments = iter([datetime.now(UTC), datetime.now(UTC) + timedelta(days=1)])
    producer = Producer(
        processor, (), max_streams=1, max_event_bytes=1000, now=lambda: next(moments)
    )
    add_producer(server, producer)
    await server.start()
    mine, secret = organisation.tls_pair("weather", URI + "weather")
    async with channel(
        server.address, root_cas=organisation.tls.pem, certificate=mine, key=secret
    ) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ProducerStub(opened).Publish(iter([request(), request()]))
    await server.stop(0)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "producer weather expired" in str(refused.value.details())


async def test_a_hub_that_stops_tells_producers_what_it_took(house: House) -> None:
    hub = await house.hub(PEER_GRACEPERIOD="1h")
    accepted = sample("eventhub_publications_accepted_total")

    async def and_no_more() -> AsyncIterator[event_hub_pb2.PublishRequest]:
        yield request()
        await asyncio.Event().wait()

    async with dialled(house, hub) as opened:
        call = ProducerStub(opened).Publish(and_no_more())
        await eventually(lambda: sample("eventhub_publications_accepted_total") == accepted + 1)
        await hub.stop()
        assert (await call).accepted == 1


async def test_consumers_get_what_producers_sent_before_the_end(house: House) -> None:
    """A producer that goes on and on does not use up the time that consumers have."""
    hub = await house.hub(PEER_GRACEPERIOD="1h")
    client = house.client(hub)
    await client.register(interest(CHAINCODE, "weather", on=NEWS))

    async def on_and_on() -> AsyncIterator[event_hub_pb2.PublishRequest]:
        while True:
            yield request()
            await asyncio.sleep(0)

    async with dialled(house, hub) as opened:
        call = ProducerStub(opened).Publish(on_and_on())
        assert (await client.hear()).chaincode_event.event_name == "storm"
        stopping = asyncio.create_task(hub.stop())
        summary = await call
        heard = 1
        with suppress(grpc.aio.AioRpcError):  # the farewell
            while (message := await client.call.read()) is not EOF:
                assert events_pb2.Event.FromString(message).chaincode_event.event_name == "storm"
                heard += 1
        await stopping
    assert heard == summary.accepted


async def test_what_comes_after_the_farewell_is_not_taken() -> None:
    """Though it was there already, and the stream has yet to be ended."""
    consumers = Consumers(1, OutboxConfig(1, 1000, 1000), 60, 1000)
    processor = Processor(Interests(1), consumers, 10, 1000, 0)
    producer = Producer(processor, (), max_streams=1, max_event_bytes=1000)

    async def requests() -> AsyncIterator[event_hub_pb2.PublishRequest]:
        yield request()
        producer.farewell()
        yield request()
        yield request()

    tomorrow = datetime.now(UTC) + timedelta(days=1)
    summary = await producer._take_all(requests(), "weather", tomorrow)
    assert (summary.accepted, list(summary.dropped)) == (1, [])


async def test_no_producer_keeps_the_others_out(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_MAXPRODUCERS="3")

    async def on_and_on() -> AsyncIterator[event_hub_pb2.PublishRequest]:
        yield request()
        await asyncio.Event().wait()

    async with dialled(house, hub) as opened:
        calls = [ProducerStub(opened).Publish(on_and_on()) for _ in range(2)]
        await eventually(lambda: sample("eventhub_producers") == 2)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await publish(house, hub, [request()])
        assert "producer weather has 2 streams already, its share" in str(refused.value.details())
        assert (await publish(house, hub, [request()], URI + "other")).accepted == 1
        for call in calls:
            call.cancel()


async def test_a_producer_that_says_nothing_gives_its_place_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seek, "FIRST_REQUEST_SECONDS", 0.05)
    hub = await house.hub()

    async def nothing() -> AsyncIterator[event_hub_pb2.PublishRequest]:
        await asyncio.Event().wait()
        yield request()

    async with dialled(house, hub) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await ProducerStub(opened).Publish(nothing())
    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert sample("eventhub_producers") == 0
