"""Readers at the newest block: each gets the next one as it comes, and none holds up another."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from prometheus_client import REGISTRY

from selvedge_common.msp import PolicyNotSatisfied
from selvedge_common.protoutil.errors import BlockUnavailable
from selvedge_common.protoutil.live_readers import LiveReaders
from selvedge_common.protoutil.metrics import DeliverRequests
from selvedge_common.protoutil.reading import Allowance, Reading
from selvedge_common.protoutil.responses import Backlog
from selvedge_common.protoutil.seek_request import FOREVER, BlockRange
from selvedge_protos.common import common_pb2

PATIENCE = 5.0
SIZE = 8


class Blocks:
    """Responses of eight bytes that grow in number; those that are `lost` cannot be given, and of
    the others those that are `far` have to be fetched."""

    def __init__(self, height: int = 1) -> None:
        self.live = LiveReaders(self)
        self.height = height
        self.lost: set[int] = set()
        self.far: set[int] = set()
        self.waits = 0
        self._grown = asyncio.Condition()

    def remembered(self, number: int) -> bytes | None:
        return None if number in self.lost | self.far else self.response(number)

    async def fetch(self, number: int, last: int) -> bytes:
        if number in self.lost:
            raise BlockUnavailable(common_pb2.SERVICE_UNAVAILABLE, f"block {number} is lost")
        return self.response(number)

    async def wait_for(self, height: int) -> None:
        self.waits += 1
        async with self._grown:
            await self._grown.wait_for(lambda: self.height >= height)

    async def grow(self, by: int = 1) -> None:
        async with self._grown:
            self.height += by
            self._grown.notify_all()

    @staticmethod
    def response(number: int) -> bytes:
        return number.to_bytes(SIZE, "big")


class Stream:
    """A client that reads when it is told to."""

    peer = "ipv4:127.0.0.1:1"

    def __init__(self, mark: int = 1 << 30) -> None:
        self.got: list[int] = []
        self.pending_bytes = 0
        self.broken = False
        self._mark = mark
        self._read = asyncio.Event()

    @property
    def full(self) -> bool:
        return self.pending_bytes > self._mark

    def send(self, message: bytes) -> None:
        if self.broken:
            raise RuntimeError("this stream is broken")
        self.got.append(int.from_bytes(message, "big"))
        self.pending_bytes += len(message)

    def read_all(self) -> None:
        self.pending_bytes = 0
        self._read.set()

    async def drained(self) -> None:
        while self.full:
            self._read.clear()
            await self._read.wait()

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise AssertionError(f"{code}: {details}")


class Crowd:
    """All who read the blocks."""

    def __init__(self) -> None:
        self.blocks = Blocks()
        self.backlog = Backlog(1 << 20, 1)
        self.tasks: list[asyncio.Task[None]] = []

    def read(
        self,
        stream: Stream,
        start: int = 1,
        stop: int = FOREVER,
        check_still: Callable[[], None] = lambda: None,
    ) -> asyncio.Task[None]:
        async def turn() -> None:
            await asyncio.sleep(0)

        reading = Reading(
            stream,
            self.blocks,
            BlockRange(start, stop),
            True,
            Allowance(time.time() + 60, check_still, time.time),
            self.backlog,
            DeliverRequests("crowd", "block"),
            turn,
        )
        self.backlog.join(stream)
        self.tasks.append(asyncio.create_task(reading.run()))
        return self.tasks[-1]

    async def live(self, number: int) -> None:
        await eventually(lambda: len(self.blocks.live) == number)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


async def heard(number: int, *streams: Stream) -> None:
    """Return once block `number` is the last that each of them got."""
    await eventually(lambda: all(stream.got[-1:] == [number] for stream in streams))


async def ended(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(PATIENCE):
        await task


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    made = Crowd()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    # Nobody is left behind, and whoever comes later begins anew.
    assert len(made.blocks.live) == 0


async def test_a_block_is_waited_for_once_for_all(crowd: Crowd) -> None:
    streams = [Stream() for _ in range(600)]  # more than have their turn at once
    before = sent()
    for stream in streams:
        crowd.read(stream)
    await crowd.live(600)
    for number in (1, 2, 3):
        await crowd.blocks.grow()
        await heard(number, *streams)
    assert all(stream.got == [1, 2, 3] for stream in streams)
    assert crowd.blocks.waits <= 4
    await eventually(lambda: sent() - before == 1800)


async def test_blocks_that_come_at_once_leave_together(crowd: Crowd) -> None:
    streams = [Stream(), Stream()]
    for stream in streams:
        crowd.read(stream)
    crowd.read(streams[0], start=5, stop=7)  # of a batch, the middle
    await crowd.live(3)
    turns = 0
    await crowd.blocks.grow(20)
    while not streams[1].got:
        await asyncio.sleep(0)
        turns += 1
    assert [len(stream.got) for stream in streams] == [23, 20]
    assert turns < 5


async def test_many_blocks_at_once_leave_others_their_turn(crowd: Crowd) -> None:
    streams = [Stream() for _ in range(10)]
    for stream in streams:
        crowd.read(stream)
    await crowd.live(10)
    await crowd.blocks.grow(1000)
    turns = 0
    while streams[0].got[-1:] != [1000]:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1000 * 10 / 300
    await eventually(lambda: all(stream.got == [*range(1, 1001)] for stream in streams))


async def test_the_last_block_ends_it(crowd: Crowd) -> None:
    stream, other = Stream(), Stream()
    task = crowd.read(stream, stop=2)
    crowd.read(other)
    await crowd.live(2)
    await crowd.blocks.grow(3)
    await ended(task)
    assert stream.got == [1, 2]
    await eventually(lambda: other.got == [1, 2, 3])


async def test_who_comes_while_a_block_is_told_gets_each_once(crowd: Crowd) -> None:
    for _ in range(600):
        crowd.read(Stream())
    await crowd.live(600)
    late: list[Stream] = []
    for _ in range(20):
        await crowd.blocks.grow()
        late.append(Stream())
        crowd.read(late[-1], start=crowd.blocks.height - 1)
        await asyncio.sleep(0)
    await heard(20, *late)
    assert [stream.got for stream in late] == [[*range(first, 21)] for first in range(1, 21)]


async def test_one_that_does_not_read_goes_on_by_itself(crowd: Crowd) -> None:
    slow, quick = Stream(mark=2 * SIZE), Stream()
    crowd.read(slow)
    crowd.read(quick)
    await crowd.live(2)
    for number in range(1, 11):
        await crowd.blocks.grow()
        await heard(number, quick)
    assert slow.got == [1, 2, 3]
    await crowd.live(1)
    while slow.got != quick.got:
        slow.read_all()
        await asyncio.sleep(0)
    slow.read_all()
    await crowd.live(2)
    await crowd.blocks.grow()
    await eventually(lambda: slow.got == quick.got == [*range(1, 12)])


async def test_one_that_there_is_no_room_for_waits_for_it(crowd: Crowd) -> None:
    crowd.backlog = Backlog(4 * SIZE, 4)
    hog, quick = Stream(), Stream()
    crowd.read(hog)
    crowd.read(quick)
    await crowd.live(2)
    for number in range(1, 9):
        await crowd.blocks.grow()
        await heard(number, quick)
        quick.read_all()
    assert hog.got == [1, 2, 3, 4]
    hog.read_all()
    await eventually(lambda: hog.got == [*range(1, 9)])


async def test_each_is_told_that_a_block_is_lost(crowd: Crowd) -> None:
    tasks = [crowd.read(Stream()) for _ in range(3)]
    await crowd.live(3)
    crowd.blocks.lost = {1}
    await crowd.blocks.grow()
    for task in tasks:
        with pytest.raises(BlockUnavailable, match="block 1 is lost"):
            await ended(task)
    crowd.blocks.lost = set()
    later = Stream()
    crowd.read(later, start=2)
    await crowd.live(1)
    await crowd.blocks.grow()
    await eventually(lambda: later.got == [2])


async def test_a_block_that_is_not_in_memory_is_fetched(crowd: Crowd) -> None:
    streams = [Stream(), Stream()]
    for stream in streams:
        crowd.read(stream)
    await crowd.live(2)
    crowd.blocks.far = {1}
    await crowd.blocks.grow(2)
    await eventually(lambda: all(stream.got == [1, 2] for stream in streams))


async def test_who_may_read_no_more_is_told_before_the_next_block(crowd: Crowd) -> None:
    allowed = True

    def check() -> None:
        if not allowed:
            raise PolicyNotSatisfied("no more")

    stream, other = Stream(), Stream()
    task = crowd.read(stream, check_still=check)
    crowd.read(other)
    await crowd.live(2)
    await crowd.blocks.grow()
    await eventually(lambda: stream.got == [1])
    allowed = False
    await crowd.blocks.grow()
    with pytest.raises(PolicyNotSatisfied, match="no more"):
        await ended(task)
    await eventually(lambda: other.got == [1, 2])
    assert stream.got == [1]


async def test_who_leaves_is_offered_nothing_more(crowd: Crowd) -> None:
    stream, other = Stream(), Stream()
    task = crowd.read(stream)
    crowd.read(other)
    await crowd.live(2)
    task.cancel()
    await crowd.live(1)
    await crowd.blocks.grow()
    await eventually(lambda: other.got == [1])
    assert stream.got == []


async def test_a_stream_that_is_broken_is_its_own_trouble_alone(crowd: Crowd) -> None:
    broken, other = Stream(), Stream()
    task = crowd.read(broken)
    crowd.read(other)
    await crowd.live(2)
    broken.broken = True
    await crowd.blocks.grow()
    with pytest.raises(RuntimeError, match="this stream is broken"):
        await ended(task)
    await eventually(lambda: other.got == [1])


def sent() -> float:
    labels = {"channel": "crowd", "filtered": "false", "data_type": "block"}
    return REGISTRY.get_sample_value("deliver_blocks_sent", labels) or 0.0
