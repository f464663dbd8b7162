"""Seeking: positions, and the loop that answers."""

import asyncio
import hashlib
import itertools
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
from selvedge_common.protoutil.errors import MalformedSeek
from selvedge_common.protoutil.responses import (
    Backlog,
    Responses,
    block_response,
    filtered_block_response,
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
    """Blocks in memory that grow while they are read."""

    def __init__(self, height: int) -> None:
        self.blocks: list[bytes] = []
        self.read: list[int] = []
        self.awaited = 0
        self._grown = asyncio.Condition()
        for number in range(height):
            self.blocks.append(self._make(number))

    @property
    def height(self) -> int:
        return len(self.blocks)

    def block(self, number: int) -> bytes:
        self.read.append(number)
        return self.blocks[number]

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


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


def always(_: OpenedSeek) -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


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
        assert chain.read == []


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
    assert len(chain.read) <= 5
    while not task.done():
        stream.read_all()
        await asyncio.sleep(0)
    await task
    assert stream.answers == [*range(50), "SUCCESS"]


async def test_filtered_blocks_are_sent_where_asked_for(client: Any, transact: Any) -> None:
    chain = Chain(0)
    block = blocks.new_block(0, b"", [transact(event="created").SerializeToString()])
    chain.blocks.append(block.SerializeToString())
    stream = Stream(seek_envelope("mychannel", OLDEST, OLDEST, WAIT, client))
    stream.half_close()
    await run(stream, chain, make_response=filtered_block_response, data_type="filtered_block")
    assert stream.sent[0].filtered_block == block_events.filtered_block(block)


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


async def test_readers_share_what_was_made_of_a_block() -> None:
    chain, made = Chain(40), []

    def make(block: bytes) -> bytes:
        made.append(block)
        return block_response(block)

    size = len(block_response(chain.blocks[-1]))
    responses = Responses(chain, make, max_bytes=3 * size)
    assert responses.response(0) is responses.response(0)
    assert [responses.response(number) for number in (1, 2, 0, 3)]
    kept = responses.response(0)
    assert made == chain.blocks[:4]
    assert responses.response(1) == block_response(chain.blocks[1])  # it had to go for block 3
    assert len(made) == 5
    assert responses.response(0) is kept


def test_a_response_above_what_is_remembered_is_shared_all_the_same() -> None:
    chain = Chain(2)
    responses = Responses(chain, max_bytes=1)
    assert responses.response(0) is responses.response(0)
    assert responses.response(1) is responses.response(1)
    assert chain.read == [0, 1]


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
