"""All consumers together: who is admitted, who is seen, and who makes room."""

import asyncio
from dataclasses import dataclass, field
from typing import cast

import grpc
import pytest
from eventhouse import sample

from event_hub.consumers import Consumers
from event_hub.outbox import Outbox, OutboxConfig
from event_hub.session import CloseReason, Service, Session
from selvedge_common.comm import MessageStream, StatusError

MEGABYTE = 1024 * 1024


@dataclass(eq=False)
class Stream:
    """A stream whose reader takes nothing."""

    pending_bytes: int = 0
    peer: str = "ipv4:127.0.0.1:1"
    status: tuple[grpc.StatusCode, str] | None = None
    full: bool = False
    closed: bool = False
    ended: list[str] = field(default_factory=list)

    def send(self, message: bytes) -> None:
        self.pending_bytes += len(message)

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.pending_bytes = 0
        self.ended.append(f"{code.name} {details}")

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}


def make_consumers(limit: int = 10, total_bytes: int = 10 * MEGABYTE) -> Consumers:
    config = OutboxConfig(max_events=100, max_bytes=100 * MEGABYTE, max_event_bytes=100 * MEGABYTE)
    return Consumers(limit, config, send_timeout=60, total_bytes=total_bytes)


def open_stream(pending_bytes: int = 0) -> MessageStream:
    return cast("MessageStream", Stream(pending_bytes))


def admit(consumers: Consumers, megabytes: float) -> Outbox:
    outbox, event = consumers.admit(open_stream()), bytes(int(megabytes * MEGABYTE))
    assert not consumers.crowded(len(event))
    outbox.offer(event)
    return outbox


def test_streams_of_every_service_share_the_places_and_are_counted() -> None:
    consumers = make_consumers(limit=2)
    before = sample("eventhub_consumers_closed_total", reason="TOO_MANY_CONSUMERS")
    chat = consumers.admit(open_stream())
    with consumers.session(Service.DELIVER, open_stream()) as reading:
        assert set(consumers) == {chat, reading}
        assert sample("eventhub_consumers", kind="CHAT") == 1
        assert sample("eventhub_consumers", kind="DELIVER") == 1
        with (
            pytest.raises(StatusError, match="serves 2 consumers already"),
            consumers.session(Service.SUBSCRIBE, open_stream()),
        ):
            pass
        reading.closed = CloseReason.HALF_CLOSED
    assert set(consumers) == {chat}
    assert consumers.closed == {CloseReason.TOO_MANY_CONSUMERS: 1, CloseReason.HALF_CLOSED: 1}
    assert sample("eventhub_consumers_closed_total", reason="TOO_MANY_CONSUMERS") == before + 1


def test_session_counts_what_was_sent_and_taken() -> None:
    stream = Stream()
    session = Session(Service.SUBSCRIBE, cast("MessageStream", stream))
    session.send(bytes(100))
    session.send(bytes(50))
    stream.pending_bytes = 30
    assert (session.delivered, session.taken_bytes, session.waiting_bytes) == (2, 120, 30)
    assert not session.idle


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (None, CloseReason.CLIENT_GONE),
        ((grpc.StatusCode.CANCELLED, ""), CloseReason.CLIENT_GONE),
        ((grpc.StatusCode.RESOURCE_EXHAUSTED, ""), CloseReason.TRANSPORT_BOUND),
    ],
)
def test_end_that_the_hub_did_not_decide_is_told_by_the_stream(
    status: tuple[grpc.StatusCode, str] | None, reason: CloseReason
) -> None:
    session = Session(Service.DELIVER, cast("MessageStream", Stream(status=status)))
    assert session.reason is reason
    session.close(CloseReason.EXPIRED, grpc.StatusCode.UNAUTHENTICATED, "over")
    assert session.reason is CloseReason.EXPIRED


async def test_room_is_made_by_who_most_waits_for_until_some_is_free() -> None:
    consumers = make_consumers()
    outboxes = [admit(consumers, size) for size in (1, 4, 2, 3)]
    assert consumers.crowded(MEGABYTE)
    await consumers.make_room(MEGABYTE)
    # Of ten megabytes at most seven and a half stay, the one that is to come among them.
    assert [outbox.closed for outbox in outboxes] == [None, CloseReason.SLOW_CONSUMER, None, None]
    await consumers.make_room(MEGABYTE)
    assert sum(outbox.closed is None for outbox in outboxes) == 3


async def test_who_reads_in_time_makes_room_without_being_closed() -> None:
    consumers = make_consumers()
    outboxes = [admit(consumers, 5), admit(consumers, 5)]
    assert consumers.crowded(MEGABYTE)
    making = asyncio.create_task(consumers.make_room(MEGABYTE))
    await asyncio.sleep(0)
    assert not making.done()
    cast("Stream", outboxes[0].stream).pending_bytes -= MEGABYTE
    await making
    assert all(outbox.closed is None for outbox in outboxes)


async def test_who_gets_the_past_is_not_closed_for_what_its_replay_has_sent() -> None:
    """However large that is beside what waits for those who are live."""
    consumers = make_consumers()
    replaying, live, other = admit(consumers, 4.5), admit(consumers, 3), admit(consumers, 2.5)
    replaying.replaying.add("mychannel")
    consumers.past.join(replaying)
    assert consumers.crowded(MEGABYTE)
    await consumers.make_room(MEGABYTE)
    assert live.closed is CloseReason.SLOW_CONSUMER
    assert replaying.closed is None
    assert other.closed is None
    # It is live with the next block.
    replaying.replaying.clear()
    consumers.past.leave(replaying)
    third = admit(consumers, 3)
    assert consumers.crowded(MEGABYTE)
    await consumers.make_room(MEGABYTE)
    assert replaying.closed is CloseReason.SLOW_CONSUMER
    assert third.closed is None


async def test_who_has_got_the_past_and_waits_for_a_block_counts_once() -> None:
    consumers = make_consumers()
    caught_up, *_ = [admit(consumers, size) for size in (3, 2, 2)]
    caught_up.replaying.add("mychannel")
    caught_up.blocks_behind = lambda: {"mychannel": 0}
    consumers.past.join(caught_up)
    # Seven megabytes wait, of ten that may; what was sent meanwhile was taken.
    assert not consumers.crowded(3 * MEGABYTE)
    assert not consumers.crowded(3 * MEGABYTE)
    assert consumers.crowded(4 * MEGABYTE)
