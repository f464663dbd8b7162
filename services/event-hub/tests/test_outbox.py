"""A consumer that does not read is closed, and nobody else notices."""

import asyncio
import contextlib
from typing import Any

import grpc
import grpc.aio
import pytest
from eventhouse import EOF, PATIENCE, Client, House, eventually, interest, sample

from event_hub import config as configuration
from event_hub.events import BLOCK, CHAINCODE
from event_hub.hub import stream_config
from event_hub.outbox import Outbox
from event_hub.session import CloseReason
from selvedge_common.comm import GRPCServer, MessageStream, ServerConfig, channel
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
    assert sample("eventhub_consumers", kind="CHAT") == 3
    assert sample("eventhub_interests") == 3
    assert sample("eventhub_outbox_events") == 0


async def test_outbox_is_bounded_in_bytes(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_OUTBOX_MAXBYTES="1MB")
    slow, reader = house.client(hub, options=NARROW), house.client(hub)
    for client in (slow, reader):
        await client.register(interest(CHAINCODE, "cc"))
    ledger = house.ledger
    while sample("eventhub_consumers", kind="CHAT") == 2:
        await ledger.commit(ledger.transaction(payload=KILOBYTES_100))
        await reader.hear()
        assert sample("eventhub_outbox_bytes") <= 1024 * 1024 + 2 * 400 * 1024
    code, sentence = await slow.refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("SLOW_CONSUMER: ")


async def test_what_waits_for_all_consumers_is_bounded(house: House) -> None:
    """The streams count too, since gRPC copies what it sends; who reads is not closed."""
    hub = await house.hub(PEER_EVENTS_OUTBOX_TOTALBYTES="5MB")
    stuck = [house.client(hub, options=NARROW) for _ in range(8)]
    reader = house.client(hub)
    for client in (*stuck, reader):
        await client.register(interest(CHAINCODE, "cc"))
    before = sample("eventhub_consumers_closed_total", reason="SLOW_CONSUMER")
    most, done = 0.0, asyncio.Event()

    async def observe() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, sample("eventhub_outbox_bytes"))
            await asyncio.sleep(0)

    observing = asyncio.create_task(observe())
    payload = b"x" * 1_000_000
    for _ in range(2):
        await house.ledger.commit(house.ledger.transaction(payload=payload))
        assert (await reader.hear()).chaincode_event.payload == payload
    done.set()
    await observing
    assert 4_000_000 < most <= 5 * 1024 * 1024
    closed = sample("eventhub_consumers_closed_total", reason="SLOW_CONSUMER") - before
    assert 4 <= closed <= 7
    assert sample("eventhub_consumers", kind="CHAT") == 9 - closed
    sentences = [(await client.refused())[1] for client in stuck if client.call.done()]
    assert all(sentence.startswith("SLOW_CONSUMER: ") for sentence in sentences)
    assert all("peer.events.outbox.totalBytes" in sentence for sentence in sentences)


async def test_one_consumer_alone_has_only_its_own_bounds(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_OUTBOX_TOTALBYTES="100KB")
    client = house.client(hub, options=NARROW)
    await client.register(interest(CHAINCODE, "cc"))
    payload = b"x" * 1_000_000
    await house.ledger.commit(house.ledger.transaction(payload=payload))
    assert (await client.hear()).chaincode_event.payload == payload


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
    assert sample("eventhub_interests") == 1


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


async def test_event_above_the_limit_closes_with_a_reason_of_its_own(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_MAXSENDMSGSIZE="64KB")
    client, other = house.client(hub), house.client(hub)
    await client.register(interest(CHAINCODE, "cc"))
    await other.register(interest(CHAINCODE, "cc", "small"))
    before = sample("eventhub_consumers_closed_total", reason="EVENT_TOO_LARGE")
    large, small = (
        house.ledger.transaction(event="large", payload=KILOBYTES_100),
        house.ledger.transaction(event="small"),
    )
    await house.ledger.commit(large, small)
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("EVENT_TOO_LARGE: ")
    assert "peer.events.maxSendMsgSize" in sentence
    assert (await other.hear()).chaincode_event.event_name == "small"
    await eventually(lambda: sample("eventhub_consumers", kind="CHAT") == 1)
    assert sample("eventhub_consumers_closed_total", reason="EVENT_TOO_LARGE") == before + 1
    assert sample("eventhub_interests") == 1


@pytest.mark.parametrize("reason", ["SLOW_CONSUMER", "CLIENT_GONE"])
async def test_events_in_the_outbox_of_a_closed_consumer_count_as_abandoned(
    house: House, reason: str
) -> None:
    hub = await house.hub(PEER_EVENTS_OUTBOX_MAXEVENTS="20")
    slow, reader = house.client(hub, options=NARROW), house.client(hub)
    for client in (slow, reader):
        await client.register(interest(CHAINCODE, "cc"))
    before = sample("eventhub_consumers_closed_total", reason=reason)
    abandoned = sample("eventhub_events_abandoned_total")
    waiting = 0.0
    while sample("eventhub_consumers", kind="CHAT") == 2:
        waiting = sample("eventhub_outbox_events") or waiting
        if reason == "CLIENT_GONE" and waiting > 5:
            slow.call.cancel()
            await eventually(lambda: sample("eventhub_consumers", kind="CHAT") == 1)
            break
        await house.ledger.commit(house.ledger.transaction(payload=KILOBYTES_100))
        await reader.hear()
    assert sample("eventhub_consumers_closed_total", reason=reason) == before + 1
    assert waiting > 5
    assert sample("eventhub_events_abandoned_total") - abandoned == waiting


@pytest.mark.parametrize(
    ("size", "max_bytes"), [(100, 1024 * 1024), (600 * 1024, 1024)], ids=["many", "one alone"]
)
async def test_full_outbox_leaves_with_its_stream(size: int, max_bytes: int) -> None:
    """However many or large its events are: a stream that ends takes all of them."""
    environ = {
        "CORE_PEER_EVENTS_OUTBOX_MAXBYTES": f"{max_bytes}",
        "CORE_PEER_EVENTS_MAXSENDMSGSIZE": f"{max(size, 16 * 1024)}",
    }
    config = configuration.read(None, environ)
    bounds, message, offered = config.outbox, b"x" * size, 0

    async def fill(stream: MessageStream) -> None:
        nonlocal offered
        outbox = Outbox(stream, bounds)
        while not outbox.waiting_events or (
            outbox.waiting_events < bounds.max_events
            and outbox.queued_bytes + size <= bounds.max_bytes
        ):
            outbox.offer(message)
            offered += 1
        outbox.finish(CloseReason.SHUTTING_DOWN, grpc.StatusCode.UNAVAILABLE, "all was sent")

    limits = ServerConfig(
        max_send_bytes=config.peer.events.max_send_msg_size, stream=stream_config(config)
    )
    server = GRPCServer("127.0.0.1:0", limits)
    server.add_message_stream("/test.Outbox/Fill", fill)
    await server.start()
    try:
        async with channel(server.address, root_cas=None) as opened:
            call: Any = opened.stream_stream("/test.Outbox/Fill")()  # type: ignore[call-arg]
            heard = 0
            async with asyncio.timeout(4 * PATIENCE):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    while await call.read() is not EOF:
                        heard += 1
            assert await call.details() == "SHUTTING_DOWN: all was sent"
            assert heard == offered > 1
    finally:
        await server.stop(0)
