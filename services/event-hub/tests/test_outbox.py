"""A consumer that does not read is closed, and nobody else notices."""

import asyncio

import grpc
from eventhouse import Client, House, eventually, interest, sample

from event_hub.events import BLOCK, CHAINCODE
from selvedge_protos.peer import events_pb2

# Small windows, so that a client which does not read is full after little.
NARROW = (("grpc.http2.lookahead_bytes", 65536), ("grpc.http2.bdp_probe", 0))
KILOBYTES_100 = b"x" * 100_000


async def test_consumer_that_stops_reading_is_closed_and_others_receive_everything(
    house: House,
) -> None:
    hub = await house.hub(PEER_EVENTS_OUTBOX_MAXEVENTS="20")
    slow = house.client(hub, options=NARROW)
    readers = [house.client(hub) for _ in range(3)]
    for client in (slow, *readers):
        await client.register(interest(CHAINCODE, "cc"))
    before = sample("eventhub_consumers_closed_total", reason="SLOW_CONSUMER")
    ledger, total = house.ledger, 150

    def height() -> float:
        return sample("eventhub_source_height", channel="mychannel")

    async def read(client: Client) -> list[str]:
        return [(await client.hear()).chaincode_event.event_name for _ in range(total)]

    reading = [asyncio.create_task(read(client)) for client in readers]
    most = 0.0
    for number in range(total):
        await ledger.commit(ledger.transaction(event=f"{number}", payload=KILOBYTES_100))
        await eventually(
            lambda: sample("eventhub_source_height", channel="mychannel") == ledger.height
        )
        most = max(most, sample("eventhub_outbox_events"))
    assert await asyncio.gather(*reading) == [[str(n) for n in range(total)]] * 3

    await eventually(
        lambda: sample("eventhub_consumers_closed_total", reason="SLOW_CONSUMER") == before + 1
    )
    code, sentence = await slow.refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("SLOW_CONSUMER: ")
    assert "peer.events.outbox.maxEvents" in sentence
    assert 20 <= most <= 4 * 20
    assert sample("eventhub_consumers") == 3
    assert sample("eventhub_interests") == 3
    assert sample("eventhub_outbox_events") == 0


async def test_outbox_is_bounded_in_bytes(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_OUTBOX_MAXBYTES="1MB")
    slow, reader = house.client(hub, options=NARROW), house.client(hub)
    for client in (slow, reader):
        await client.register(interest(CHAINCODE, "cc"))
    ledger = house.ledger
    while sample("eventhub_consumers") == 2:
        await ledger.commit(ledger.transaction(payload=KILOBYTES_100))
        await reader.hear()
        assert sample("eventhub_outbox_bytes") <= 1024 * 1024
    code, sentence = await slow.refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("SLOW_CONSUMER: ")


async def test_consumer_without_progress_is_closed_after_the_send_timeout(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_SENDTIMEOUT="300ms")
    stalled, reader = house.client(hub, options=NARROW), house.client(hub)
    for client in (stalled, reader):
        await client.register(interest(CHAINCODE, "cc"))
    before = sample("eventhub_consumers_closed_total", reason="SEND_TIMEOUT")
    ledger, payload = house.ledger, b"x" * 1_000_000
    for _ in range(20):
        await ledger.commit(ledger.transaction(payload=payload))
        await reader.hear()
    await eventually(
        lambda: sample("eventhub_consumers_closed_total", reason="SEND_TIMEOUT") == before + 1
    )
    code, sentence = await stalled.refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("SEND_TIMEOUT: ")
    await reader.confirmed(events_pb2.Event())


async def test_client_that_registers_in_a_loop_and_never_reads_is_closed(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_OUTBOX_MAXEVENTS="20")
    client = house.client(hub, options=NARROW)
    before = sample("eventhub_consumers_closed_total", reason="SLOW_CONSUMER")
    big = events_pb2.Register(events=[interest(BLOCK, on="x" * 100_000)])
    message = client.sign(events_pb2.Event(register=big))

    async def say_for_ever() -> None:
        while True:
            await client.say(message)

    saying = asyncio.create_task(say_for_ever())
    await eventually(
        lambda: sample("eventhub_consumers_closed_total", reason="SLOW_CONSUMER") == before + 1
    )
    saying.cancel()
    await asyncio.gather(saying, return_exceptions=True)
    assert sample("eventhub_interests") == 0


async def test_burst_of_blocks_closes_no_consumer_that_reads(house: House) -> None:
    """After an outage of its source the hub reads faster than it can write."""
    ledger, total = house.ledger, 400
    for number in range(total):
        await ledger.commit(ledger.transaction(event=f"{number}", payload=b"x" * 10_000))
    await house.peer.stop()
    hub = await house.hub(PEER_EVENTS_OUTBOX_MAXEVENTS="20")
    clients = [house.client(hub) for _ in range(4)]
    for client in clients:
        await client.register(interest(CHAINCODE, "cc"), interest(BLOCK))
    await house.peer.start()

    async def read(client: Client) -> list[str]:
        names: list[str] = []
        while len(names) < total:
            event = await client.hear()
            if event.HasField("chaincode_event"):
                names.append(event.chaincode_event.event_name)
        return names

    everything = [str(number) for number in range(total)]
    assert await asyncio.gather(*map(read, clients)) == [everything] * 4
