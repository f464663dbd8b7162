"""Header bombs, games with HPACK's table, and requests that are none."""

import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from common.tests.comm.native.conftest import Target
from common.tests.comm.native.raw_client import (
    GREETING,
    data,
    headers,
    message,
    opening,
    request_fields,
    unindexed,
)
from hpack import Encoder

from selvedge_common.comm.native import frames
from selvedge_common.comm.native.connection import RECEIVED, STREAM_COST
from selvedge_common.comm.native.frames import ErrorCode, Setting

Attack = Callable[..., Awaitable[Target]]


def _continued(number: int, block: bytes) -> bytes:
    """A block in as many frames as it needs."""
    parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    first = frames.frame(frames.HEADERS, frames.END_HEADERS * (len(parts) == 1), number, parts[0])
    return first + b"".join(
        frames.frame(frames.CONTINUATION, frames.END_HEADERS * (part is parts[-1]), number, part)
        for part in parts[1:]
    )


def _bomb(times: int, size: int = 3900) -> tuple[bytes, bytes]:
    """A block that puts a large field into the table, and one that names it many times."""
    usual = unindexed(request_fields("/none.Such/Method"))
    return usual + Encoder().encode([("filler", "x" * size)]), usual + b"\xbe" * times


async def test_few_references_to_a_large_entry_are_refused_by_their_size(target: Target) -> None:
    client = await target.connect()
    plant, bomb = _bomb(6)
    client.send(headers(client.next_stream(), plant), headers(client.next_stream(), bomb))
    response = await client.response(3)
    assert response.status == 8
    assert "16384" in response.sentence
    assert target.stopped_at("max_header_list_bytes") == 1
    await target.recovers()


async def test_many_references_to_a_large_entry_end_the_connection(target: Target) -> None:
    client = await target.connect()
    plant, bomb = _bomb(10_000)
    client.send(headers(client.next_stream(), plant), headers(client.next_stream(), bomb))
    code, sentence = await client.goaway()
    assert code is ErrorCode.ENHANCE_YOUR_CALM
    assert "65536 bytes" in sentence
    assert target.ended("max_header_list_bytes") == 1
    await target.recovers()


async def test_bombs_leave_no_memory_behind_though_blocks_are_remembered(target: Target) -> None:
    client = await target.connect()
    plant, bomb = _bomb(3)
    client.send(headers(client.next_stream(), plant, end=True))
    await client.settle()
    tracemalloc.start()
    try:
        for number in range(60):
            # Another block each time, which the table does not notice.
            other = unindexed([("n", str(number))])
            client.send(headers(client.next_stream(), bomb + other, end=True))
        await client.settle()
        connection = await target.connection()
        await target.eventually(lambda: not connection.streams)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not connection._incoming._headers._known
    assert taken < 60 * 3 * 3900 / 2
    await target.recovers()


async def test_headers_of_calls_that_run_count_for_the_process(attack: Attack) -> None:
    target = await attack(http2={"max_receiving_in_process": 100_000})
    greedy, modest = await target.connect(), await target.connect()
    kept = modest.open("/test.Raw/Chat")
    await modest.settle()
    plant, _ = _bomb(0)
    bomb = unindexed(request_fields("/test.Raw/Hold")) + b"\xbe" * 3
    greedy.send(headers(greedy.next_stream(), plant, end=True))
    for _ in range(20):
        greedy.send(headers(greedy.next_stream(), bomb))
    await target.eventually(lambda: target.stopped_at("max_receiving_in_process") > 0)
    await greedy.settle()
    assert RECEIVED.bytes <= 100_000
    assert target.stopped_at("max_receiving_in_process") >= 10
    modest.send(data(kept, message(b"1"), end=True))
    assert (await modest.response(kept)).messages == [b"1"]
    await target.recovers()


@pytest.mark.parametrize("method", ["/test.Raw/Hold", "/"])
async def test_request_for_which_there_is_no_room_at_all_is_reset(
    attack: Attack, method: str
) -> None:
    target = await attack(http2={"max_receiving_in_process": STREAM_COST + 800})
    client = await target.connect()
    number = client.open(method, ("filler", "x" * 500), ("content-type", "text/plain"))
    assert (await client.response(number)).reset is ErrorCode.ENHANCE_YOUR_CALM
    assert target.running == 0
    await target.recovers()


@pytest.mark.parametrize("commas", [1000, 15_000])
async def test_list_of_binary_metadata_counts_by_its_entries(target: Target, commas: int) -> None:
    client = await target.connect()
    block = unindexed([*request_fields("/test.Raw/Echo"), ("k-bin", "," * commas)])
    number = client.next_stream()
    client.send(_continued(number, block), data(number, message(b""), end=True))
    assert (await client.response(number)).status == 8
    assert target.stopped_at("max_header_list_bytes") == 1
    await target.recovers()


async def test_usual_requests_are_remembered(target: Target) -> None:
    client = await target.connect()
    blocks = [client.block("/test.Raw/Echo") for _ in range(3)]
    for block in blocks:
        number = client.next_stream()
        client.send(headers(number, block), data(number, message(b"1"), end=True))
        assert (await client.response(number)).messages == [b"1"]
    # The first one fills the table, all others leave it as it is.
    connection = await target.connection()
    assert list(connection._incoming._headers._known) == [blocks[1]] == [blocks[2]]
    await target.recovers()


async def test_remembered_block_means_something_else_after_the_table_has_changed(
    target: Target,
) -> None:
    client = await target.connect()
    usual = unindexed(request_fields("/test.Raw/Hold"))
    newest = usual + b"\xbe"

    async def metadata(block: bytes) -> Any:
        number = client.next_stream()
        client.send(headers(number, block))
        await client.settle()
        return (await target.connection()).streams[number].request.metadata

    for value in ("1", "2"):
        plant = usual + Encoder().encode([("a", value)])
        assert await metadata(plant) == (("a", value),)
        for _ in range(2):
            assert await metadata(newest) == (("a", value),)
    # Emptied and filled again, the table is as long as before, and newest of it looks the same.
    assert await metadata(b"\x20\x3f\xe1\x1f" + plant) == (("a", "2"),)
    connection = await target.connection()
    assert not connection._incoming._headers._known
    await target.recovers()


@pytest.mark.parametrize(
    "changes",
    [b"\x20" * 3, b"\x20" * 16000, b"\x3f\xe1\x1f" * 3, b"\x20\x3f\xe1\x1f\x20\x3f\xe1\x1f"],
)
async def test_block_with_many_changes_of_the_table_ends_the_connection(
    target: Target, changes: bytes
) -> None:
    client = await target.connect()
    block = client.block("/test.Raw/Echo")
    client.send(headers(client.next_stream(), changes + block))
    code, sentence = await client.goaway()
    assert code is ErrorCode.COMPRESSION_ERROR
    assert "changes of the table's size" in sentence
    assert target.ended("compression_error") == 1
    await target.recovers()


async def test_block_may_empty_the_table_and_set_it_up_again(target: Target) -> None:
    client = await target.connect()
    client.encoder.header_table_size = 0
    client.encoder.header_table_size = 4096
    for _ in range(3):
        number = client.call("/test.Raw/Echo", b"1")
        assert (await client.response(number)).messages == [b"1"]
    await target.recovers()


@pytest.mark.parametrize(
    "block",
    [
        b"\x3f\xe2\x1f",  # a larger table than is allowed
        b"\xff\xff\xff\xff\xff\xff\xff\xff",  # an endless number
        b"\xbe",  # an entry that is not there
        b"\x80",  # the entry zero
        b"\x00\x7f\xff\xff\xff\x7f",  # a name that is longer than the block
        b"\x00\x81\xff\x00",  # padding that is no Huffman code
        b"\x00\x01a\x85\xff\xff\xff\xff\xff",  # Huffman's end of string
        b"\x82\x20",  # a change of the table in the middle
        b"\x40",
    ],
)
async def test_block_that_cannot_be_decoded_ends_the_connection(
    target: Target, block: bytes
) -> None:
    client = await target.connect()
    client.send(headers(1, block))
    assert (await client.goaway())[0] is ErrorCode.COMPRESSION_ERROR
    assert target.ended("compression_error") == 1
    await target.recovers()


async def test_huge_literal_is_refused_and_an_enormous_one_ends_the_connection(
    target: Target,
) -> None:
    client = await target.connect()
    number = client.next_stream()
    block = client.encoder.encode([*_usual(), ("a", "x" * 17_000)], huffman=False)
    client.send(_continued(number, block))
    client.send(data(number, message(b""), end=True))
    response = await client.response(number)
    assert response.status == 8
    assert "above this listener's limit of 16384" in response.sentence
    block = client.encoder.encode([*_usual(), ("a", "x" * 70_000)], huffman=False)
    client.send(_continued(client.next_stream(), block))
    assert (await client.goaway())[0] is ErrorCode.ENHANCE_YOUR_CALM
    await target.recovers()


def _usual() -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/test.Raw/Echo"),
        ("content-type", "application/grpc"),
    ]


async def test_requests_that_are_refused_for_their_size_are_paid_for(attack: Attack) -> None:
    target = await attack(http2={"overhead_bytes": 100_000})
    client = await target.connect()
    block = client.encoder.encode([*_usual(), ("a", "x" * 17000)], huffman=False)
    for _ in range(10):
        client.send(_continued(client.next_stream(), block))
    assert (await client.goaway())[0] is ErrorCode.ENHANCE_YOUR_CALM
    assert target.ended("max_header_list_bytes") == 1
    await target.recovers()


@pytest.mark.parametrize(
    "extra",
    [
        (("connection", "close"),),
        (("transfer-encoding", "chunked"),),
        (("te", "gzip"),),
        ((":status", "200"),),
        (("content-length", "many"),),
        (("content-length", "9" * 19),),
        (("grpc-timeout", "1"),),
        (("grpc-timeout", "123456789S"),),
        (("grpc-timeout", "-1S"),),
        (("a-bin", "*"),),
        (("a-bin", "YWJ=ZGVm"),),
        (("a b", "c"),),
        (("", "c"),),
        (("a", "b\0c"),),
        (("a", "b\r\nc"),),
        (("a", " b"),),
        ((":path", ""),),
    ],
)
async def test_malformed_request_is_reset_and_the_connection_goes_on(
    target: Target, extra: tuple[tuple[str, str], ...]
) -> None:
    client = await target.connect()
    number = client.open("/test.Raw/Echo", *extra)
    assert (await client.response(number)).reset is ErrorCode.PROTOCOL_ERROR
    assert (await client.response(client.call("/test.Raw/Echo", b"1"))).messages == [b"1"]
    await target.recovers()


@pytest.mark.parametrize(
    "fields",
    [
        [("a", "b"), *_usual()],
        [*_usual()[1:]],
        [*_usual(), (":path", "/b")],
        [*_usual()[:2], ("A", "b"), _usual()[2]],
        [*_usual(), ("Upper", "case")],
    ],
)
async def test_pseudo_headers_and_names_out_of_order_are_reset(
    target: Target, fields: list[tuple[str, str]]
) -> None:
    client = await target.connect()
    number = client.next_stream()
    client.send(headers(number, client.encoder.encode(fields)))
    assert (await client.response(number)).reset is ErrorCode.PROTOCOL_ERROR
    await target.recovers()


async def test_data_that_is_not_as_long_as_content_length_says_is_reset(target: Target) -> None:
    client = await target.connect()
    for body, end in ((b"123456", False), (b"1234", True)):
        number = client.open("/test.Raw/Hold", ("content-length", "5"))
        client.send(data(number, body, end=end))
        assert (await client.response(number)).reset is ErrorCode.PROTOCOL_ERROR
    number = client.next_stream()
    block = client.block("/test.Raw/Hold", ("content-length", "5"))
    client.send(headers(number, block, end=True))
    assert (await client.response(number)).reset is ErrorCode.PROTOCOL_ERROR
    number = client.open("/test.Raw/Echo", ("content-length", "6"))
    client.send(data(number, message(b"1"), end=True))
    assert (await client.response(number)).messages == [b"1"]
    await target.recovers()


async def test_client_that_wants_no_table_is_told_that_none_is_used(target: Target) -> None:
    client = await target.connect(greeting=opening({Setting.HEADER_TABLE_SIZE: 0}))
    client.decoder.max_allowed_table_size = 0
    # The decoder refuses a first block that does not say so, and the second need not.
    for _ in range(2):
        number = client.call("/test.Raw/Echo", b"1")
        assert (await client.response(number)).messages == [b"1"]
    await target.recovers()


# Who is no gRPC client gets a sentence.


async def test_http_request_that_is_not_grpc_gets_a_sentence(target: Target) -> None:
    client = await target.connect()
    for extra in (
        ((":method", "GET"), ("content-type", "text/html")),
        (("content-type", "application/json"),),
        (("content-type", "application/grpcx"),),
    ):
        number = client.open("/", *extra, end=True)
        response = await client.response(number)
        assert response.headers[":status"] == "415"
        assert b"Use a gRPC client" in response.body
        assert int(response.headers["content-length"]) == len(response.body)
    await target.recovers()


async def test_sentence_waits_for_the_window_of_who_asked(target: Target) -> None:
    client = await target.connect(greeting=opening({Setting.INITIAL_WINDOW_SIZE: 0}))
    number = client.open("/", (":method", "GET"), end=True)
    await client.until(frames.HEADERS, number)
    client.send(frames.window_update(number, 1000))
    sentence = await client.until(frames.DATA, number)
    assert b"This is a gRPC server" in sentence.payload
    assert (await client.until(frames.DATA, number)).flags & frames.END_STREAM
    await target.recovers()


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/grpc;a=b"])
async def test_every_form_of_the_content_type_is_served(target: Target, content_type: str) -> None:
    client = await target.connect()
    number = client.call("/test.Raw/Echo", b"1", extra=(("content-type", content_type),))
    assert (await client.response(number)).messages == [b"1"]
    await target.recovers()


async def test_http_1_request_gets_a_sentence(target: Target) -> None:
    client = await target.connect(greeting=b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = await client.reader.read()
    assert answer.startswith(b"HTTP/1.1 505 ")
    assert b"speaks HTTP/1.1, and this port is gRPC's" in answer
    assert target.ended("not_http2") == 1
    await target.recovers()


@pytest.mark.parametrize(
    ("greeting", "sentence"),
    [
        (b"\x16\x03\x01\0\xff\1\0", "speaks TLS, and this port is plaintext"),
        (b"hello", "not HTTP/2"),
        (GREETING[:20] + b"x" + GREETING[21:], "not HTTP/2"),
    ],
)
async def test_who_does_not_speak_http2_is_told_so(
    target: Target, greeting: bytes, sentence: str
) -> None:
    client = await target.connect(greeting=greeting)
    code, said = await client.goaway()
    assert code is ErrorCode.PROTOCOL_ERROR
    assert sentence in said
    assert target.ended("not_http2") == 1
    await target.recovers()
