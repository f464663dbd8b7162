"""Seeking: positions, and the loop that answers."""

import asyncio
import hashlib
import itertools
import math
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from selvedge_common.msp import PolicyNotSatisfied, identify
from selvedge_common.protoutil import block_events, blocks
from selvedge_common.protoutil.errors import BlockUnavailable, MalformedBlock, MalformedSeek
from selvedge_common.protoutil.responses import (
    AHEAD_BLOCKS,
    Backlog,
    MakeResponse,
    Responses,
    Sender,
    block_response,
    filtered_block_response,
    private_data_response,
)
from selvedge_common.protoutil.seek import client_certificate_hash, deliver
from selvedge_common.protoutil.seek_request import (
    FOREVER,
    NEWEST,
    NEXT_COMMIT,
    OLDEST,
    BlockRange,
    OpenedSeek,
    SeekRefused,
    open_seek,
    resolve,
    seek_envelope,
)
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.peer import events_pb2

WAIT = ab_pb2.SeekInfo.BLOCK_UNTIL_READY
FAIL = ab_pb2.SeekInfo.FAIL_IF_NOT_READY
PATIENCE = 5.0


class Chain:
    """Blocks that grow while they are read.

    Those whose numbers are `in_memory` need no reading, which waits until they are `readable`; for
    those that are `lost` there is a status instead. `reads` has the numbers that each read gave.
    """

    def __init__(self, height: int) -> None:
        self.blocks: list[bytes] = []
        self.reads: list[list[int]] = []
        self.in_memory: set[int] = set()
        self.readable = asyncio.Event()
        self.readable.set()
        self.lost: dict[int, common_pb2.Status.ValueType] = {}
        self.awaited = 0
        self._grown = asyncio.Condition()
        for number in range(height):
            self.blocks.append(self._make(number))

    @property
    def height(self) -> int:
        return len(self.blocks)

    def held(self, number: int) -> bytes | None:
        return self.blocks[number] if number in self.in_memory else None

    async def read(self, first: int, last: int, max_bytes: int, make: MakeResponse) -> list[bytes]:
        await self.readable.wait()
        if first in self.lost:
            raise BlockUnavailable(self.lost[first], f"Block {first} is lost.")
        made: list[bytes] = []
        size = 0
        for number in range(first, last + 1):
            if made and (number in self.lost or size >= max_bytes):
                break
            try:
                made.append(make(self.blocks[number]))
            except MalformedBlock:
                if made:
                    break
                raise
            size += len(self.blocks[number])
        self.reads.append([*range(first, first + len(made))])
        return made

    async def wait_for(self, height: int) -> None:
        self.awaited = height
        async with self._grown:
            await self._grown.wait_for(lambda: self.height >= height)

    async def grow(self) -> None:
        async with self._grown:
            self.blocks.append(self._make(self.height))
            self._grown.notify_all()

    def _make(self, number: int) -> bytes:
        return blocks.new_block(number, b"", [b"data"]).SerializeToString()


class Stream:
    """A client's side: what it asks, what it was sent, how much of that it has not read."""

    peer = "ipv4:127.0.0.1:1"

    def __init__(self, *requests: Any, mark: int = 1 << 30) -> None:
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        for request in requests:
            self.ask(request)
        self._mark = mark
        self.sent: list[events_pb2.DeliverResponse] = []
        self.unread = 0
        self.ended = ""
        self.change = asyncio.Event()

    def ask(self, request: Any) -> None:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        self._requests.put_nowait(data)

    def half_close(self) -> None:
        self._requests.put_nowait(None)

    @property
    def full(self) -> bool:
        return self.unread > self._mark

    def send(self, message: bytes) -> None:
        self.sent.append(events_pb2.DeliverResponse.FromString(message))
        self.unread += len(message)
        self.change.set()

    @property
    def pending_bytes(self) -> int:
        return self.unread

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.ended = f"{code.name}: {details}"
        self.read_all()

    async def drained(self) -> None:
        while self.full:
            self.change.clear()
            await self.change.wait()

    def read_all(self) -> None:
        self.unread = 0
        self.change.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (request := await self._requests.get()) is not None:
            yield request

    @property
    def answers(self) -> list[Any]:
        """Numbers of blocks, and statuses by name."""
        return [
            response.block.header.number
            if response.WhichOneof("Type") == "block"
            else common_pb2.Status.Name(response.status)
            for response in self.sent
        ]


class Crowd(Backlog):
    """Counts the streams that have had to wait."""

    waiting = 0

    async def wait_for(self, stream: Sender, size: int) -> None:
        self.waiting += 1
        await super().wait_for(stream, size)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


def always(_: OpenedSeek) -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def checked_response(block: bytes) -> bytes:
    """As when something has to be made of a block."""
    return block_response(blocks.parse_block(block).SerializeToString())


async def run(stream: Stream, chain: Chain, **how: Any) -> None:
    how.setdefault("check_access", always)
    how["backlog"] = how.get("backlog") or Backlog(1 << 30, 1)
    responses = Responses(chain, how.pop("make_response", block_response))
    async with asyncio.timeout(PATIENCE):
        await deliver(stream, responses_of={"mychannel": responses}.get, **how)


def seek(start: Any, stop: Any, behavior: Any = WAIT) -> ab_pb2.SeekInfo:
    def position(value: Any) -> ab_pb2.SeekPosition:
        if isinstance(value, int):
            return ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=value))
        assert isinstance(value, ab_pb2.SeekPosition)
        return value

    return ab_pb2.SeekInfo(start=position(start), stop=position(stop), behavior=behavior)


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (OLDEST, NEWEST, (0, 9)),
        (OLDEST, OLDEST, (0, 0)),
        (OLDEST, FOREVER, (0, FOREVER)),
        (NEWEST, NEWEST, (9, 9)),
        (NEWEST, OLDEST, (9, 9)),
        (3, OLDEST, (3, 3)),
        (3, 5, (3, 5)),
        (3, NEWEST, (3, 9)),
        (NEXT_COMMIT, NEXT_COMMIT, (10, 10)),
        (NEWEST, NEXT_COMMIT, (9, 10)),
        (NEXT_COMMIT, FOREVER, (10, FOREVER)),
        (10, 10, (10, 10)),
    ],
)
def test_positions_on_a_chain_of_ten(start: Any, stop: Any, expected: tuple[int, int]) -> None:
    assert resolve(seek(start, stop), 10) == BlockRange(*expected)


@pytest.mark.parametrize(
    ("start", "stop", "behavior", "status"),
    [
        (5, 4, WAIT, common_pb2.BAD_REQUEST),
        (NEWEST, 4, FAIL, common_pb2.BAD_REQUEST),
        (12, 4, WAIT, common_pb2.BAD_REQUEST),
        (NEXT_COMMIT, NEWEST, WAIT, common_pb2.BAD_REQUEST),
        (11, 20, WAIT, common_pb2.NOT_FOUND),
        (10, 10, FAIL, common_pb2.NOT_FOUND),
        (10, NEWEST, FAIL, common_pb2.NOT_FOUND),
        (NEXT_COMMIT, FOREVER, FAIL, common_pb2.NOT_FOUND),
        (FOREVER, FOREVER, WAIT, common_pb2.NOT_FOUND),
    ],
)
def test_what_cannot_be_answered(start: Any, stop: Any, behavior: Any, status: Any) -> None:
    with pytest.raises(SeekRefused) as refused:
        resolve(seek(start, stop, behavior), 10)
    assert refused.value.status == status


def test_a_request_opens_to_what_was_asked(client: Any, org1: Any) -> None:
    envelope = seek_envelope("mychannel", 3, NEWEST, FAIL, client, tls_cert_hash=b"h" * 32)
    opened = open_seek(envelope)
    assert opened == open_seek(envelope.SerializeToString())
    assert opened.channel == "mychannel"
    assert opened.channel_header.type == common_pb2.DELIVER_SEEK_INFO
    assert opened.channel_header.tls_cert_hash == b"h" * 32
    assert opened.seek == seek(3, NEWEST, FAIL)
    signed = opened.signed_data()
    identify(signed.identity, {"Org1MSP": org1.msp}).verify(signed.message, signed.signature)


def test_a_request_without_positions_or_timestamp_is_refused(client: Any) -> None:
    nowhere = ab_pb2.SeekPosition()
    with pytest.raises(MalformedSeek, match="no start position"):
        open_seek(seek_envelope("mychannel", nowhere, NEWEST, WAIT, client))
    with pytest.raises(MalformedSeek, match="no stop position"):
        open_seek(seek_envelope("mychannel", NEWEST, nowhere, WAIT, client))
    with pytest.raises(MalformedSeek, match="no header"):
        open_seek(b"")
    header = common_pb2.Header(channel_header=b"")
    payload = common_pb2.Payload(header=header).SerializeToString()
    with pytest.raises(MalformedSeek, match="no timestamp"):
        open_seek(common_pb2.Envelope(payload=payload))


@given(data=st.binary(max_size=200))
def test_random_bytes_raise_only_malformed_seek(client: Any, data: bytes) -> None:
    payload = common_pb2.Payload.FromString(
        seek_envelope("mychannel", OLDEST, NEWEST, WAIT, client).payload
    )
    payload.data = b"\x0a\xff" + data
    for hostile in (data, common_pb2.Envelope(payload=data), payload.SerializeToString()):
        with pytest.raises(MalformedSeek):
            open_seek(hostile)
    with pytest.raises(MalformedSeek):
        open_seek(common_pb2.Envelope(payload=payload.SerializeToString()))


async def test_each_request_gets_its_blocks_and_one_status(client: Any) -> None:
    stream = Stream(
        seek_envelope("mychannel", OLDEST, 2, WAIT, client),
        seek_envelope("mychannel", NEWEST, NEWEST, FAIL, client),
    )
    stream.half_close()
    await run(stream, Chain(5))
    assert stream.answers == [0, 1, 2, "SUCCESS", 4, "SUCCESS"]


async def test_a_request_may_wait_for_blocks_to_come(client: Any) -> None:
    stream, chain = Stream(seek_envelope("mychannel", NEXT_COMMIT, 3, WAIT, client)), Chain(2)
    stream.half_close()
    task = asyncio.create_task(run(stream, chain))
    await eventually(lambda: chain.awaited == 3)
    assert stream.answers == []
    await chain.grow()
    await eventually(lambda: stream.answers == [2])
    await chain.grow()
    await task
    assert stream.answers == [2, 3, "SUCCESS"]


async def test_a_request_that_does_not_wait_ends_at_the_newest_block(client: Any) -> None:
    stream = Stream(seek_envelope("mychannel", 1, FOREVER, FAIL, client))
    await run(stream, Chain(3))
    assert stream.answers == [1, 2, "NOT_FOUND"]


async def test_after_a_refusal_nothing_more_is_read(client: Any) -> None:
    stream = Stream(
        seek_envelope("mychannel", 2, 1, WAIT, client),
        seek_envelope("mychannel", OLDEST, NEWEST, WAIT, client),
    )
    await run(stream, Chain(3))
    assert stream.answers == ["BAD_REQUEST"]


async def test_garbage_is_a_bad_request() -> None:
    stream = Stream(b"\xff\xff")
    await run(stream, Chain(1))
    assert stream.answers == ["BAD_REQUEST"]


async def test_an_unknown_channel_is_not_found(client: Any) -> None:
    stream = Stream(seek_envelope("other", OLDEST, NEWEST, WAIT, client))
    await run(stream, Chain(1))
    assert stream.answers == ["NOT_FOUND"]


async def test_who_may_not_read_is_forbidden(client: Any, org2: Any) -> None:
    def refuse(_: OpenedSeek) -> datetime:
        raise PolicyNotSatisfied("No.")

    def identify_it(request: OpenedSeek) -> datetime:
        return identify(request.signature_header.creator, {"Org2MSP": org2.msp}).expires_at

    for check in (refuse, identify_it):
        chain = Chain(1)
        stream = Stream(seek_envelope("mychannel", OLDEST, NEWEST, WAIT, client))
        await run(stream, chain, check_access=check)
        assert stream.answers == ["FORBIDDEN"]
        assert chain.reads == []


async def test_a_client_whose_certificate_expires_meanwhile_is_forbidden(client: Any) -> None:
    now = datetime.now(UTC)
    times = [now.timestamp()]
    chain = Chain(1)
    stream = Stream(seek_envelope("mychannel", OLDEST, FOREVER, WAIT, client))
    access = {"check_access": lambda _: now + timedelta(seconds=5), "clock": lambda: times[0]}
    task = asyncio.create_task(run(stream, chain, **access))
    await eventually(lambda: stream.answers == [0])
    times[0] += 6
    await chain.grow()
    await task
    assert stream.answers == [0, "FORBIDDEN"]


async def test_an_idle_stream_ends_when_the_certificate_does(client: Any) -> None:
    # The injected clock stands still, so the loop's counts what is left by it.
    now = datetime(2001, 9, 9, tzinfo=UTC)
    stream, chain = Stream(seek_envelope("mychannel", OLDEST, FOREVER, WAIT, client)), Chain(1)
    access = {
        "check_access": lambda _: now + timedelta(milliseconds=20),
        "clock": now.timestamp,
        "time_window": math.inf,
    }
    await run(stream, chain, **access)
    assert (chain.awaited, stream.answers) == (2, [0, "FORBIDDEN"])


async def test_a_certificate_that_expires_while_there_is_no_room_ends_the_stream(
    client: Any,
) -> None:
    now = datetime.now(UTC)
    times = [now.timestamp()]
    chain = Chain(1)
    size = len(block_response(chain.blocks[0]))
    backlog = Crowd(size, 1000)
    hog = Stream()
    backlog.join(hog)
    assert backlog.take(hog, size)
    hog.unread = size
    stream = Stream(seek_envelope("mychannel", OLDEST, OLDEST, WAIT, client))
    access = {"check_access": lambda _: now + timedelta(seconds=5), "clock": lambda: times[0]}
    task = asyncio.create_task(run(stream, chain, backlog=backlog, **access))
    await eventually(lambda: backlog.waiting == 1)
    times[0] += 6
    hog.read_all()
    await task
    assert stream.answers == ["FORBIDDEN"]


@pytest.mark.parametrize("skew", [-901, 901])
async def test_a_timestamp_outside_the_window_is_a_bad_request(client: Any, skew: int) -> None:
    now = datetime.now(UTC).timestamp()
    stream = Stream(seek_envelope("mychannel", OLDEST, NEWEST, WAIT, client))
    await run(stream, Chain(1), clock=lambda: now + skew)
    assert stream.answers == ["BAD_REQUEST"]


@pytest.mark.parametrize(
    ("claimed", "actual", "answers"),
    [
        (b"h" * 32, b"h" * 32, [0, "SUCCESS"]),
        (b"x" * 32, b"h" * 32, ["BAD_REQUEST"]),
        (None, b"h" * 32, ["BAD_REQUEST"]),
        (None, b"", ["BAD_REQUEST"]),
        (b"x" * 32, None, [0, "SUCCESS"]),
    ],
)
async def test_a_request_is_bound_to_its_tls_certificate(
    client: Any, claimed: Any, actual: Any, answers: Any
) -> None:
    stream = Stream(seek_envelope("mychannel", OLDEST, OLDEST, WAIT, client, tls_cert_hash=claimed))
    stream.half_close()
    await run(stream, Chain(1), tls_binding=actual)
    assert stream.answers == answers


def test_a_certificate_hash_is_over_its_der_form(client: Any) -> None:
    certificate: x509.Certificate = client.certificate
    pem = certificate.public_bytes(Encoding.PEM)
    expected = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    assert client_certificate_hash({"x509_pem_cert": [pem]}) == expected
    assert client_certificate_hash({}) == b""


async def test_a_slow_reader_bounds_what_is_read_for_it(client: Any) -> None:
    chain = Chain(50)
    mark = 4 * len(chain.blocks[0])
    stream = Stream(seek_envelope("mychannel", OLDEST, NEWEST, WAIT, client), mark=mark)
    stream.half_close()
    task = asyncio.create_task(run(stream, chain))
    await eventually(lambda: stream.full)
    for _ in range(100):
        await asyncio.sleep(0)
    assert stream.unread <= mark + len(block_response(chain.blocks[-1]))
    assert len(chain.reads) == 1
    while not task.done():
        stream.read_all()
        await asyncio.sleep(0)
    await task
    assert stream.answers == [*range(50), "SUCCESS"]


async def test_who_reads_nothing_is_not_waited_for_beyond_the_patience_for_it(client: Any) -> None:
    chain = Chain(3)
    stream = Stream(seek_envelope("mychannel", 9, 9, WAIT, client), mark=0)
    backlog = Backlog(1 << 20, 1, patience=0.01)
    async with asyncio.timeout(PATIENCE):
        status = await deliver(
            stream, responses_of=lambda _: Responses(chain), check_access=always, backlog=backlog
        )
    assert status == common_pb2.NOT_FOUND
    assert stream.unread


async def test_filtered_blocks_are_sent_where_asked_for(client: Any, transact: Any) -> None:
    chain = Chain(0)
    block = blocks.new_block(0, b"", [transact(event="created").SerializeToString()])
    chain.blocks.append(block.SerializeToString())
    stream = Stream(seek_envelope("mychannel", OLDEST, OLDEST, WAIT, client))
    stream.half_close()
    await run(stream, chain, make_response=filtered_block_response, data_type="filtered_block")
    assert stream.sent[0].filtered_block == block_events.filtered_block(block)


async def test_blocks_come_without_private_data_where_there_is_none(client: Any) -> None:
    labels = {"channel": "mychannel", "filtered": "false", "data_type": "block_and_pvtdata"}

    def sent() -> float:
        return REGISTRY.get_sample_value("deliver_blocks_sent", labels) or 0

    before = sent()
    chain = Chain(1)
    stream = Stream(seek_envelope("mychannel", OLDEST, OLDEST, WAIT, client))
    stream.half_close()
    await run(stream, chain, make_response=private_data_response, data_type="block_and_pvtdata")
    assert stream.sent[0] == events_pb2.DeliverResponse(
        block_and_private_data=events_pb2.BlockAndPrivateData(
            block=common_pb2.Block.FromString(chain.blocks[0])
        )
    )
    assert sent() == before + 1


async def test_requests_and_blocks_are_counted(client: Any) -> None:
    def values() -> list[float]:
        labels = {"channel": "mychannel", "filtered": "false", "data_type": "block"}
        return [
            REGISTRY.get_sample_value(f"deliver_{name}", where) or 0
            for name, where in (
                ("streams_opened", {}),
                ("streams_closed", {}),
                ("requests_received", labels),
                ("requests_completed", labels | {"success": "true"}),
                ("blocks_sent", labels),
            )
        ]

    before = values()
    stream = Stream(seek_envelope("mychannel", OLDEST, 2, WAIT, client))
    stream.half_close()
    await run(stream, Chain(3))
    assert [after - then for after, then in zip(values(), before, strict=True)] == [1, 1, 1, 1, 3]


async def test_a_long_replay_leaves_others_their_turn(client: Any) -> None:
    stream = Stream(seek_envelope("mychannel", OLDEST, NEWEST, FAIL, client))
    stream.half_close()
    seen: list[int] = []

    async def other() -> None:
        while not stream.answers or stream.answers[-1] != "SUCCESS":
            seen.append(len(stream.answers))
            await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(run(stream, Chain(200)), other())
    assert max(after - before for before, after in itertools.pairwise(seen)) <= 16


async def test_a_block_in_memory_is_given_at_once_and_made_once_for_all() -> None:
    chain, made = Chain(3), []

    def make(block: bytes) -> bytes:
        made.append(block)
        return block_response(block)

    chain.in_memory = {2}
    responses = Responses(chain, make)
    assert responses.remembered(1) is None
    assert responses.remembered(2) == block_response(chain.blocks[2])
    assert responses.remembered(2) is responses.remembered(2)
    assert (made, chain.reads) == ([chain.blocks[2]], [])


async def test_readers_share_one_read() -> None:
    chain = Chain(8)
    responses = Responses(chain)
    chain.readable.clear()
    readers = [asyncio.create_task(responses.fetch(n, 7)) for n in (2, 2, 5, 1)]
    await asyncio.sleep(0)
    readers.pop(0).cancel()  # who asked first need not stay
    await asyncio.sleep(0)
    chain.readable.set()
    async with asyncio.timeout(PATIENCE):
        found = await asyncio.gather(*readers)
    assert found == [block_response(chain.blocks[n]) for n in (2, 5, 1)]
    assert sorted(chain.reads) == [[1], [2, 3, 4, 5, 6, 7]]
    assert responses.remembered(7) == block_response(chain.blocks[7])


async def test_no_more_is_read_than_the_reader_goes_on_to() -> None:
    chain = Chain(2 * AHEAD_BLOCKS)
    responses = Responses(chain)
    await responses.fetch(3, 5)
    await responses.fetch(20, FOREVER)
    assert chain.reads == [[3, 4, 5], [*range(20, 20 + AHEAD_BLOCKS)]]


async def test_what_is_remembered_is_bounded_and_the_last_one_is_in_any_case() -> None:
    chain = Chain(40)
    size = len(block_response(chain.blocks[-1]))
    responses = Responses(chain, max_bytes=3 * size)
    for number in (10, 11, 12, 10, 13):
        assert await responses.fetch(number, number)
    assert responses.remembered(10)
    assert responses.remembered(11) is None  # it had to go for block 13
    one = Responses(chain, max_bytes=1)
    for number in (0, 1):
        response = await one.fetch(number, number)
        assert one.remembered(number) is response
    assert one.remembered(0) is None


async def test_readers_in_many_places_do_not_read_in_vain() -> None:
    chain = Chain(4000)
    size = len(block_response(chain.blocks[-1]))
    # Room for four blocks a reader, and one would fill it with those that follow its own.
    responses = Responses(chain, max_bytes=400 * size)
    for turn in range(20):
        for start in range(0, 4000, 40):
            await responses.fetch(start + turn, FOREVER)
    given = 20 * 100
    assert sum(map(len, chain.reads)) < 2 * given


async def test_a_reader_behind_which_another_one_reads_does_not_wait_for_that_one() -> None:
    """Each read of the one that is behind may bring the block of the other, and never does."""
    chain = Chain(AHEAD_BLOCKS)
    # Room for two blocks that are read ahead.
    responses = Responses(chain, max_bytes=8 * len(chain.blocks[0]))
    walking = True

    async def walk() -> None:
        for number in range(AHEAD_BLOCKS):
            if not walking:
                return
            await responses.fetch(number, FOREVER)

    async with asyncio.timeout(PATIENCE):
        walker = asyncio.create_task(walk())
        await asyncio.sleep(0)
        await responses.fetch(100, FOREVER)
        walking = False
        await walker
    before = chain.reads.index(next(read for read in chain.reads if read[0] == 100))
    assert before <= 3


async def test_a_block_that_is_lost_ends_the_answer_with_its_status(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    chain = Chain(9)
    for number, status in ((4, "INTERNAL_SERVER_ERROR"), (6, "SERVICE_UNAVAILABLE")):
        chain.lost[number] = common_pb2.Status.Value(status)
        stream = Stream(
            seek_envelope("mychannel", number - 1, FOREVER, WAIT, client),
            seek_envelope("mychannel", OLDEST, NEWEST, WAIT, client),
        )
        await run(stream, chain)
        assert stream.answers == [number - 1, status]
    refusals = [record for record in caplog.records if "deliver refused" in record.getMessage()]
    assert len(refusals) == 2
    assert "Block 4 is lost." in refusals[0].getMessage()
    # Others are given all the same.
    stream = Stream(seek_envelope("mychannel", 7, NEWEST, WAIT, client))
    stream.half_close()
    await run(stream, chain)
    assert stream.answers == [7, 8, "SUCCESS"]


@pytest.mark.parametrize("in_memory", [False, True])
async def test_a_block_that_is_none_cannot_be_delivered(client: Any, in_memory: bool) -> None:
    chain = Chain(2)
    chain.blocks[1] = b"\xff"
    chain.in_memory = {1} if in_memory else set()
    stream = Stream(seek_envelope("mychannel", OLDEST, NEWEST, WAIT, client))
    await run(stream, chain, make_response=checked_response)
    assert stream.answers == [0, "INTERNAL_SERVER_ERROR"]


async def test_what_waits_for_all_readers_together_is_bounded(client: Any) -> None:
    chain = Chain(30)
    size = len(block_response(chain.blocks[-1]))
    backlog = Backlog(10 * size, 1000)
    streams = [
        Stream(seek_envelope("mychannel", OLDEST, NEWEST, FAIL, client), mark=5 * size)
        for _ in range(8)
    ]
    for stream in streams:
        stream.half_close()
    tasks = [asyncio.create_task(run(stream, chain, backlog=backlog)) for stream in streams]
    async with asyncio.timeout(PATIENCE):
        while not all(task.done() for task in tasks):
            assert sum(stream.unread for stream in streams) <= 10 * size + 8 * 4
            for stream in streams:
                stream.read_all()
            await asyncio.sleep(0)
    assert [stream.answers for stream in streams] == [[*range(30), "SUCCESS"]] * 8


async def test_a_stream_within_its_share_waits_for_nobody(client: Any) -> None:
    chain = Chain(1)
    size = len(block_response(chain.blocks[0]))
    backlog = Backlog(4 * size, 2)
    hog = Stream()
    hog.unread = 100 * size
    backlog.join(hog)
    stream = Stream(seek_envelope("mychannel", OLDEST, NEWEST, FAIL, client))
    stream.half_close()
    await run(stream, chain, backlog=backlog)
    assert stream.answers == [0, "SUCCESS"]
    assert REGISTRY.get_sample_value("deliver_pending_bytes") == 100 * size


async def test_who_does_not_read_is_ended_when_others_wait(client: Any) -> None:
    chain = Chain(1)
    size = len(block_response(chain.blocks[0]))
    backlog = Backlog(4 * size, 1000, patience=0.05)
    hog = Stream()
    backlog.join(hog)
    assert backlog.take(hog, 4 * size)
    hog.unread = 4 * size
    stream = Stream(seek_envelope("mychannel", OLDEST, NEWEST, FAIL, client))
    stream.half_close()
    await run(stream, chain, backlog=backlog)
    assert stream.answers == [0, "SUCCESS"]
    assert hog.ended.startswith("RESOURCE_EXHAUSTED: ")
    assert "peer.limits.deliverBytes" in hog.ended
