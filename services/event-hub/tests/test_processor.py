"""The buffer in front of the outboxes, and what happens when it is full."""

import asyncio
from functools import partial

import grpc
import pytest
from eventhouse import EOF, PATIENCE, Client, House, eventually, interest, sample

from event_hub.consumers import Consumers
from event_hub.events import BLOCK, CHAINCODE, HubEvent
from event_hub.interests import Interests, Wanted
from event_hub.outbox import Outbox, OutboxConfig
from event_hub.processor import BufferFull, Processor, Publication
from selvedge_protos.peer import events_pb2

EVENT = HubEvent(BLOCK, "mychannel", b"event")


def published(name: str) -> HubEvent:
    event = events_pb2.Event()
    event.chaincode_event.event_name = name
    return HubEvent(CHAINCODE, "news", event.SerializeToString(), "weather", name, published=True)


def make_processor(timeout: float, size: int = 1) -> Processor:
    consumers = Consumers(10, OutboxConfig(10, 1000, 1000), 60, 10_000)
    return Processor(Interests(10), consumers, size, 1_000_000, timeout)


@pytest.mark.parametrize("seconds", [-1, 0.01])
async def test_publisher_is_told_when_there_was_no_room_in_time(seconds: float) -> None:
    processor = make_processor(seconds)
    before = sample("eventhub_publications_dropped_total")
    await processor.send(EVENT)
    with pytest.raises(BufferFull, match=r"^could not send the blocking event"):
        await processor.send(EVENT)
    assert sample("eventhub_publications_dropped_total") == before + 1
    assert sample("eventhub_processor_depth") == 1


@pytest.mark.parametrize("seconds", [0, 10])
async def test_publisher_waits_for_room(seconds: float) -> None:
    processor = make_processor(seconds)
    await processor.send(EVENT)
    waiting = asyncio.create_task(processor.send(EVENT))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    running = asyncio.create_task(processor.run())
    await waiting
    running.cancel()


@pytest.mark.parametrize("seconds", [-1, 0, 0.001])
async def test_source_waits_for_room_whatever_the_timeout(seconds: float) -> None:
    processor = make_processor(seconds)
    told: list[int] = []
    publications = [
        Publication(lambda _: (), handed_over=partial(told.append, n)) for n in range(5)
    ]

    async def put_all() -> None:
        for publication in publications:
            await processor.put(publication)

    waiting = asyncio.create_task(put_all())
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    assert told == []
    running = asyncio.create_task(processor.run())
    await waiting
    await processor.drain(PATIENCE)
    assert told == [0, 1, 2, 3, 4]
    running.cancel()


async def test_what_producers_published_is_told_when_there_is_no_time_for_the_rest(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = await house.hub(PEER_GRACEPERIOD="400ms")
    client = house.client(hub)
    await client.register(interest(CHAINCODE, "weather", on="news"))
    processor, stuck = hub.hub._processor, asyncio.Event()

    async def wait_for_ever(_: Processor, publication: Publication) -> None:
        stuck.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Processor, "_distribute", wait_for_ever)
    await processor.put(Publication(lambda _: ()))
    await stuck.wait()
    await processor.put(Publication(lambda _: (published("of a ledger"),)))
    await processor.send(published("storm"))
    await hub.stop()
    assert (await client.hear()).chaincode_event.event_name == "storm"
    assert await client.refused() == (
        grpc.StatusCode.UNAVAILABLE,
        "SHUTTING_DOWN: the event hub is shutting down; connect again",
    )


async def test_news_that_cannot_be_told_do_not_silence_the_next() -> None:
    processor = make_processor(0, size=5)
    before = sample("eventhub_publications_failed_total")
    told: list[str] = []

    def broken(_: Wanted) -> list[HubEvent]:
        raise RuntimeError("broken")

    await processor.put(Publication(broken, handed_over=lambda: told.append("broken")))
    await processor.put(Publication(lambda _: (), handed_over=lambda: told.append("next")))
    running = asyncio.create_task(processor.run())
    await processor.drain(PATIENCE)
    running.cancel()
    assert told == ["broken", "next"]
    assert sample("eventhub_publications_failed_total") == before + 1


async def test_fault_with_one_consumer_closes_it_and_silences_nobody_else(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = await house.hub()
    clients = [house.client(hub) for _ in range(3)]
    for client in clients:
        await client.register(interest(CHAINCODE, "cc"))
    before = sample("eventhub_consumers_closed_total", reason="HUB_FAULT")
    offer, faulty = Outbox.offer, set[Outbox]()

    def offer_but_to_the_first(outbox: Outbox, message: bytes) -> bool:
        if not faulty:
            faulty.add(outbox)
        if outbox in faulty:
            raise RuntimeError("secret")
        return offer(outbox, message)

    monkeypatch.setattr(Outbox, "offer", offer_but_to_the_first)
    names = ["a", "b", "c"]
    await house.ledger.commit(*(house.ledger.transaction(event=name) for name in names))

    async def listen(client: Client) -> list[str]:
        heard: list[str] = []
        while len(heard) < len(names):
            data = await client.call.read()
            if data is EOF:
                break
            heard.append(events_pb2.Event.FromString(data).chaincode_event.event_name)
        return heard

    async with asyncio.timeout(PATIENCE):
        ended = await asyncio.gather(*map(listen, clients), return_exceptions=True)
    assert ended.count(names) == 2
    (closed,) = [client for client, heard in zip(clients, ended, strict=True) if heard != names]
    code, sentence = await closed.refused()
    assert code is grpc.StatusCode.INTERNAL
    assert sentence.startswith("HUB_FAULT: ")
    assert "secret" not in sentence
    await eventually(lambda: sample("eventhub_interests") == 2)
    assert sample("eventhub_consumers_closed_total", reason="HUB_FAULT") == before + 1
