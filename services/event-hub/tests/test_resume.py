"""A Chat client that names a start block hears of everything from there, once and in order."""

import asyncio
from typing import cast

import grpc
import pytest
from eventhouse import PATIENCE, Client, House, eventually, interest, sample
from structlog.testing import capture_logs

from event_hub.events import BLOCK, CHAINCODE, FILTEREDBLOCK, REJECTION, Topic
from event_hub.interests import Interests
from event_hub.outbox import Outbox
from event_hub.readers import Readers
from event_hub.replay import Replay, Sharing
from event_hub.turns import AT_ONCE, Turns
from selvedge_common.comm import MessageStream
from selvedge_protos.peer import events_pb2, transaction_pb2

# Small windows, so that a client which does not read is full after little.
NARROW = (("grpc.http2.lookahead_bytes", 65536), ("grpc.http2.bdp_probe", 0))


async def commit(house: House, blocks: int, payload: bytes = b"") -> None:
    """Commit blocks of two transactions; the events are named by block and place."""
    for _ in range(blocks):
        number = house.ledger.height
        await house.ledger.commit(
            *(house.ledger.transaction(event=f"{number}.{n}", payload=payload) for n in range(2))
        )


async def all_read(house: House) -> None:
    """Wait until the hub has told of all blocks."""
    await eventually(
        lambda: sample("eventhub_source_height", channel="mychannel") == house.ledger.height
    )


async def hear_until(client: Client, block: int) -> list[str]:
    """What a client hears up to a block: the names of events, and numbers of blocks."""
    heard: list[str] = []
    while True:
        event = await client.hear()
        match event.WhichOneof("Event"):
            case "chaincode_event":
                heard.append(event.chaincode_event.event_name)
            case "filtered_block":
                heard.append(f"filtered {event.filtered_block.number}")
            case "block":
                heard.append(f"block {event.block.header.number}")
                if event.block.header.number == block:
                    return heard


def story(first: int, last: int) -> list[str]:
    """What there is to hear of these blocks for whoever wants events and blocks."""
    return [word for n in range(first, last + 1) for word in (f"{n}.0", f"{n}.1", f"block {n}")]


async def test_past_is_told_in_order_and_the_present_follows_without_gap_or_repeat(
    house: House,
) -> None:
    hub = await house.hub()
    await commit(house, 9)
    await all_read(house)
    client = house.client(hub, start="mychannel=4")
    await client.register(interest(CHAINCODE, "cc"), interest(BLOCK))
    assert await hear_until(client, 9) == story(4, 9)
    await commit(house, 3)
    assert await hear_until(client, 12) == story(10, 12)
    assert sample("eventhub_replays") == 0


async def test_only_types_that_were_registered_are_told(house: House) -> None:
    hub = await house.hub()
    ledger = house.ledger
    late = ledger.transaction(code=transaction_pb2.MVCC_READ_CONFLICT)
    await ledger.commit(ledger.transaction(event="a"), late, ledger.transaction("cc2", event="b"))
    await all_read(house)
    client = house.client(hub, start="mychannel=1")
    await client.register(
        interest(REJECTION), interest(CHAINCODE, "cc2", on="mychannel"), interest(FILTEREDBLOCK)
    )
    events = [await client.hear() for _ in range(3)]
    assert events[0].chaincode_event.event_name == "b"
    assert late.txid in events[1].rejection.error_msg
    assert events[2].filtered_block.number == 1


async def test_nothing_is_told_before_a_registration_that_touches_the_channel(
    house: House,
) -> None:
    hub = await house.hub()
    await commit(house, 2)
    await all_read(house)
    client = house.client(hub, start="mychannel=0")
    await client.confirmed(events_pb2.Event())
    await client.register(interest(BLOCK, on="elsewhere"))
    await commit(house, 1)
    await all_read(house)
    await client.register(interest(BLOCK, on="mychannel"))
    assert await hear_until(client, 3) == [f"block {n}" for n in range(4)]


async def test_who_unregisters_on_the_way_is_told_the_rest_when_it_registers_again(
    house: House,
) -> None:
    hub = await house.hub(PEER_EVENTS_OUTBOX_MAXEVENTS="20")
    await commit(house, 60, payload=b"x" * 20_000)
    await all_read(house)
    client = house.client(hub, options=NARROW, start="mychannel=1")
    await client.register(interest(CHAINCODE, "cc"), interest(BLOCK))
    heard = await hear_until(client, 2)
    goodbye = events_pb2.Event(
        unregister=events_pb2.Unregister(events=[interest(CHAINCODE, "cc"), interest(BLOCK)])
    )
    await client.say(goodbye)
    event = await client.hear()
    while not event.HasField("unregister"):
        heard.append(event.chaincode_event.event_name or f"block {event.block.header.number}")
        event = await client.hear()
    await eventually(lambda: sample("eventhub_replays") == 0)
    await commit(house, 1)
    await client.register(interest(CHAINCODE, "cc"), interest(BLOCK))
    heard += await hear_until(client, 61)
    assert heard == story(1, 61)


async def test_every_start_meets_a_running_chain_without_gap_or_repeat(house: House) -> None:
    """Wherever the processor just is: among the blocks before, in one of them, or waiting."""
    hub = await house.hub()
    await commit(house, 20)
    last = 120
    running = True

    async def run_chain() -> None:
        while house.ledger.height <= last:
            await commit(house, 1)
            await asyncio.sleep(0)

    async def listen(start: int) -> list[str]:
        client = house.client(hub, start=f"mychannel={start}")
        await client.register(interest(CHAINCODE, "cc"), interest(BLOCK))
        return await hear_until(client, last)

    async def keep_joining() -> None:
        """New clients, each from the block that comes next, for as long as the chain runs."""
        joined: list[asyncio.Task[list[str]]] = []
        starts: list[int] = []
        while running:
            starts.append(min(house.ledger.height, last))
            joined.append(asyncio.create_task(listen(starts[-1])))
            await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE):
            heard = await asyncio.gather(*joined)
        assert heard == [story(start, last) for start in starts]

    chain, joining = asyncio.create_task(run_chain()), asyncio.create_task(keep_joining())
    early = [asyncio.create_task(listen(start)) for start in range(1, 60, 3)]
    await chain
    running = False
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*early) == [story(n, last) for n in range(1, 60, 3)]
    await joining


async def test_hub_that_is_behind_a_client_leaves_out_what_that_has_heard(house: House) -> None:
    """As after a failover to another hub."""
    hub = await house.hub()
    await commit(house, 3)
    await all_read(house)
    client = house.client(hub, start="mychannel=6")
    await client.register(interest(CHAINCODE, "cc"), interest(BLOCK))
    await commit(house, 5)
    assert await hear_until(client, 8) == story(6, 8)


async def test_start_that_never_comes_harms_nobody(house: House) -> None:
    hub = await house.hub()
    client = house.client(hub, start=f"mychannel={2**64 - 1}")
    await client.register(interest(BLOCK), interest(CHAINCODE, "cc", on="elsewhere"))
    for _ in range(20):
        gone = house.client(hub, start=f"mychannel={2**63}")
        await gone.register(interest(BLOCK))
        await gone.close()
    await eventually(lambda: sample("eventhub_consumers", kind="CHAT") == 1)
    await commit(house, 2)
    await all_read(house)
    await client.confirmed(events_pb2.Event())


async def test_older_blocks_come_from_the_source(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_RECENTBYTES="1KB")
    await commit(house, 12)
    await all_read(house)
    client = house.client(hub, start="mychannel=2")
    await client.register(interest(CHAINCODE, "cc"), interest(BLOCK))
    assert await hear_until(client, 12) == story(2, 12)


async def test_block_that_no_source_gives_is_waited_for(house: House) -> None:
    hub = await house.hub(PEER_EVENTS_RECENTBYTES="1KB", SOURCE_ANSWERTIMEOUT="500ms")
    await commit(house, 6)
    await all_read(house)
    await house.peer.stop()
    before = sample("eventhub_replay_reads_failed_total", channel="mychannel")
    with capture_logs() as logged:
        client = house.client(hub, start="mychannel=3")
        await client.register(interest(CHAINCODE, "cc"), interest(BLOCK))
        await eventually(
            lambda: sample("eventhub_replay_reads_failed_total", channel="mychannel") >= before + 2
        )
        # The client hears nothing of it, and is answered meanwhile.
        await client.confirmed(events_pb2.Event())
        told = [line for line in logged if line["event"].startswith("block not available")]
        assert [line["block"] for line in told] == [3]
    await house.peer.start()
    assert await hear_until(client, 6) == story(3, 6)


async def test_slow_reader_of_the_past_is_not_closed_for_it(house: House) -> None:
    """However little may wait for it: a replay goes at the pace of its reader."""
    hub = await house.hub(PEER_EVENTS_OUTBOX_MAXEVENTS="5", PEER_EVENTS_OUTBOX_MAXBYTES="10KB")
    await commit(house, 15, payload=b"x" * 50_000)
    await all_read(house)
    client = house.client(hub, options=NARROW, start="mychannel=1")
    await client.register(interest(CHAINCODE, "cc"), interest(BLOCK))
    heard: list[str] = []
    for block in range(1, 16):
        # Until nothing more moves: the transport holds all that it takes.
        await settled()
        heard += await hear_until(client, block)
    assert heard == story(1, 15)
    assert sample("eventhub_outbox_events") == 0


async def settled() -> None:
    """Wait until the bytes in the streams have not changed for some turns of the loop."""
    before, same = -1.0, 0
    while same < 20:
        await asyncio.sleep(0)
        now = sample("eventhub_outbox_bytes")
        before, same = now, same + 1 if now == before else 0


async def test_reader_of_the_past_that_takes_nothing_is_closed_after_the_send_timeout(
    house: House,
) -> None:
    hub = await house.hub(PEER_EVENTS_SENDTIMEOUT="300ms")
    await commit(house, 10, payload=b"x" * 1_000_000)
    await all_read(house)
    before = sample("eventhub_consumers_closed_total", reason="SEND_TIMEOUT")
    client = house.client(hub, options=NARROW, start="mychannel=1")
    await client.register(interest(CHAINCODE, "cc"))
    await eventually(
        lambda: sample("eventhub_consumers_closed_total", reason="SEND_TIMEOUT") == before + 1
    )
    code, sentence = await client.refused()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sentence.startswith("SEND_TIMEOUT: ")
    await eventually(lambda: sample("eventhub_replays") == 0)


@pytest.mark.parametrize(
    ("start", "code", "reason", "said"),
    [
        (
            "mychannel:4",
            grpc.StatusCode.INVALID_ARGUMENT,
            "START_BLOCK_MALFORMED",
            "as in mychannel=17",
        ),
        (
            "elsewhere=4",
            grpc.StatusCode.NOT_FOUND,
            "CHANNEL_UNKNOWN",
            "no source of this event hub serves the channel 'elsewhere'",
        ),
    ],
)
async def test_start_that_cannot_be_is_refused_with_a_reason(
    house: House, start: str, code: grpc.StatusCode, reason: str, said: str
) -> None:
    hub = await house.hub()
    before = sample("eventhub_consumers_closed_total", reason=reason)
    client = house.client(hub, start=start)
    ended, sentence = await client.refused()
    assert ended is code
    assert sentence.startswith(f"{reason}: ")
    assert said in sentence
    await eventually(lambda: sample("eventhub_consumers_closed_total", reason=reason) == before + 1)
    assert sample("eventhub_consumers", kind="CHAT") == 0


async def test_half_close_ends_a_replay(house: House) -> None:
    hub = await house.hub()
    await commit(house, 20, payload=b"x" * 100_000)
    await all_read(house)
    client = house.client(hub, options=NARROW, start="mychannel=0")
    await client.register(interest(BLOCK))
    await client.call.done_writing()
    assert await client.refused() == (grpc.StatusCode.OK, "")
    await eventually(lambda: sample("eventhub_replays") == 0)


async def test_operators_see_how_far_behind_a_consumer_is(house: House) -> None:
    hub = await house.hub()
    await commit(house, 30, payload=b"x" * 100_000)
    await all_read(house)
    client = house.client(hub, options=NARROW, start="mychannel=1")
    await client.register(interest(CHAINCODE, "cc"))
    await settled()
    (session,) = hub.hub._consumers
    behind = session.blocks_behind()["mychannel"]
    assert 0 < behind < 30
    assert session.service == "CHAT"
    assert session.identity == "Org1MSP/user"
    assert list(session.interests()) == ["CHAINCODE cc/* on every channel"]
    assert session.waiting_bytes > 0
    delivered = session.delivered
    for _ in range(60):
        await client.hear()
    await eventually(lambda: session.blocks_behind() == {"mychannel": 0})
    assert session.delivered == 61 > delivered
    await commit(house, 1)
    await client.hear()
    assert session.blocks_behind() == {}


class Sink:
    """A stream that takes everything at once."""

    peer, status = "ipv4:127.0.0.1:1", None
    pending_bytes, full, closed = 0, False, False

    def send(self, message: bytes) -> None:
        pass

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}


async def test_many_that_are_behind_go_on_in_step(house: House) -> None:
    """However many they are, none is far ahead of another, and all else has its turn."""
    await commit(house, 30)
    hub = await house.hub()
    await all_read(house)
    consumers, channel = hub.hub._consumers, hub.hub._channels()["mychannel"]
    interests: Interests[Outbox] = Interests(10)
    readers = Readers({"mychannel": channel}, interests)
    sharing = Sharing(interests, consumers.past, consumers.turns)
    replays = []
    outboxes = [consumers.admit(cast("MessageStream", Sink())) for _ in range(500)]
    for outbox in outboxes:
        rights = readers.admit(outbox)
        rights.speak(house.organisation.identity("user"))
        replays.append(Replay(channel, 1, outbox, rights, sharing))
        interests.register(outbox, Topic(CHAINCODE, "", "cc"))
    for replay in replays:
        replay.go_on()
    turns = 0
    while any(replay.behind for replay in replays):
        await asyncio.sleep(0)
        turns += 1
        behind = [replay.behind for replay in replays]
        assert max(behind) - min(behind) <= 1
    # Each block of each of them took a turn, of which there are few in each of the loop's.
    assert turns >= 500 * 30 / AT_ONCE
    for replay, outbox in zip(replays, outboxes, strict=True):
        replay.stop()
        consumers.leave(outbox)


async def test_turns_go_round() -> None:
    turns, order = Turns(), list[str]()

    async def work(name: str, times: int) -> None:
        for _ in range(times):
            await turns.take()
            order.append(name)

    names = [f"{n}" for n in range(3 * AT_ONCE)]
    workers = [asyncio.create_task(work(name, 5)) for name in names]
    others = asyncio.create_task(work("short", 1))
    cancelled = asyncio.create_task(work("cancelled", 1))
    await asyncio.sleep(0)
    cancelled.cancel()
    loops = 0
    while not all(worker.done() for worker in workers):
        before = len(order)
        await asyncio.sleep(0)
        loops += 1
        assert len(order) - before <= AT_ONCE
    await others
    assert order == [*names, "short", *names * 4]
