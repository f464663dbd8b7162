"""The room that those who read the past share."""

import asyncio
from dataclasses import dataclass

import grpc
import pytest
from eventhouse import PATIENCE

from event_hub.room import LOOK_SECONDS, Room

KILOBYTE = 1024


@dataclass(eq=False)
class Stream:
    """A stream that takes what it is told to."""

    pending_bytes: int = 0
    peer: str = "ipv4:127.0.0.1:1"
    ended: str = ""

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.ended = f"{code.name}: {details}"
        self.pending_bytes = 0


def send(room: Room, stream: Stream, size: int) -> bool:
    taken = room.take(stream, size)
    if taken:
        stream.pending_bytes += size
    return taken


@pytest.fixture
def sent() -> list[int]:
    return []


@pytest.fixture
def room(sent: list[int]) -> Room:
    return Room(100 * KILOBYTE, sent.append)


def join(room: Room, number: int) -> list[Stream]:
    streams = [Stream() for _ in range(number)]
    for stream in streams:
        room.join(stream)
    return streams


def test_share_is_even_and_what_others_leave_may_be_used(room: Room, sent: list[int]) -> None:
    one, other = join(room, 2)
    assert send(room, one, 80 * KILOBYTE)
    assert send(room, other, 50 * KILOBYTE)  # its share, though the other has more than its own
    assert not send(room, one, KILOBYTE)
    assert not send(room, other, KILOBYTE)
    one.pending_bytes = 0
    assert send(room, other, 30 * KILOBYTE)
    assert sum(sent) == 160 * KILOBYTE


def test_share_shrinks_as_others_come_and_grows_as_they_leave(room: Room) -> None:
    streams = join(room, 10)
    for stream in streams:
        assert send(room, stream, 10 * KILOBYTE)
    assert not any(send(room, stream, 1) for stream in streams)
    for stream in streams[1:]:
        stream.pending_bytes = 0
        room.leave(stream)
    assert send(room, streams[0], 90 * KILOBYTE)


def test_message_above_the_bound_is_sent_when_nothing_else_waits(room: Room) -> None:
    one, other = join(room, 2)
    assert send(room, one, 300 * KILOBYTE)
    assert not send(room, one, 60 * KILOBYTE)
    assert send(room, other, 50 * KILOBYTE)


async def test_who_reads_waits_for_nobody_who_does_not(room: Room) -> None:
    stuck = join(room, 5)
    for stream in stuck:
        assert send(room, stream, 20 * KILOBYTE)
    reader, *_ = join(room, 5)
    waiting = [asyncio.create_task(room.wait_for(stream, 5 * KILOBYTE)) for stream in stuck]
    await asyncio.sleep(0)
    for _ in range(5):
        assert send(room, reader, 10 * KILOBYTE)
        more = asyncio.create_task(room.wait_for(reader, 10 * KILOBYTE))
        await asyncio.sleep(0)
        reader.pending_bytes = 0
        await more
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_what_is_left_over_goes_by_the_order_of_asking(room: Room) -> None:
    full, first, second = join(room, 3)
    assert send(room, full, 100 * KILOBYTE)
    order: list[str] = []

    async def ask(stream: Stream, size: int, name: str) -> None:
        await room.wait_for(stream, size)
        stream.pending_bytes += size
        order.append(name)

    asking = [
        asyncio.create_task(ask(first, 90 * KILOBYTE, "first")),
        asyncio.create_task(ask(second, 40 * KILOBYTE, "second")),
    ]
    await asyncio.sleep(0)
    # There would be room for the second one, and a third would push in before the first.
    full.pending_bytes = 50 * KILOBYTE
    assert not send(room, second, 40 * KILOBYTE)
    await asyncio.sleep(0.05)
    assert order == []
    full.pending_bytes = 0
    await asking[0]
    first.pending_bytes = 0
    await asking[1]
    assert order == ["first", "second"]


async def test_who_does_not_read_messages_above_its_share_is_ended_for_who_does() -> None:
    room = Room(100 * KILOBYTE, lambda _: None, stall=0.1)
    stuck = join(room, 4)
    for stream in stuck:
        assert send(room, stream, 25 * KILOBYTE)
    reader, within = join(room, 2)
    assert send(room, within, 10 * KILOBYTE)
    asking = [asyncio.create_task(room.wait_for(stream, 25 * KILOBYTE)) for stream in stuck]
    async with asyncio.timeout(PATIENCE):
        await room.wait_for(reader, 25 * KILOBYTE)
        await asyncio.gather(*asking)
    for stream in stuck:
        assert stream.ended.startswith("RESOURCE_EXHAUSTED: 25600 bytes were not read within 0.1 s")
        assert stream.ended.endswith("raise peer.events.outbox.totalBytes.")
    # It did not read either, but of its share alone.
    assert not within.ended


async def test_who_takes_something_is_waited_for() -> None:
    room = Room(100 * KILOBYTE, lambda _: None, stall=0.1)
    slow, other = join(room, 2)
    assert send(room, slow, 100 * KILOBYTE)
    waiting = asyncio.create_task(room.wait_for(other, 60 * KILOBYTE))
    async with asyncio.timeout(PATIENCE):
        while not waiting.done():
            slow.pending_bytes -= KILOBYTE
            await asyncio.sleep(LOOK_SECONDS)
    assert not slow.ended


async def test_who_waits_for_its_own_sake_is_not_ended() -> None:
    room = Room(100 * KILOBYTE, lambda _: None, stall=0.01)
    (alone,) = join(room, 1)
    assert send(room, alone, 300 * KILOBYTE)
    waiting = asyncio.create_task(room.wait_for(alone, 10 * KILOBYTE))
    await asyncio.sleep(5 * LOOK_SECONDS)
    assert not alone.ended
    alone.pending_bytes = 0
    await waiting
