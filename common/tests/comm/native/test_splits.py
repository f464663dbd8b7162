"""However a client's bytes are cut into reads, its calls and their answers are the same."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import cast

import pytest
from common.tests.comm.native.offline import Offline
from common.tests.comm.native.raw_client import Response, message, request_fields
from hpack import Decoder, Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selvedge_common import comm
from selvedge_common.comm.native import connection, frames
from selvedge_common.comm.native.frames import FrameReader, Setting

GREETING = frames.PREFACE + frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 20})


@dataclass(frozen=True)
class Call:
    """A call as its client sends it: each list is used round and round.

    Attributes:
        method: one that echoes.
        messages: what is sent on it.
        pieces: how many bytes of the messages go into each DATA frame.
        padding: of each frame; none for no padding at all.
        fragments: how many bytes of its header block go into each frame.
        priority: whether its headers have one.
        ends_alone: whether an empty frame half-closes, and not the last message's.
    """

    method: str
    messages: list[bytes]
    pieces: list[int]
    padding: list[int | None]
    fragments: list[int]
    priority: bool
    ends_alone: bool


CALLS = st.builds(
    Call,
    method=st.sampled_from(["Echo", "Chat", "Stream"]),
    messages=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    pieces=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    padding=st.lists(st.none() | st.integers(0, 255), min_size=1, max_size=3),
    fragments=st.lists(st.integers(1, 200), min_size=1, max_size=3),
    priority=st.booleans(),
    ends_alone=st.booleans(),
)


@pytest.fixture(scope="module")
def offline() -> Iterator[Offline]:
    """A server for all examples, which never ends a client's turn: on a busy machine it would, and
    then calls are answered in another order."""
    server = Offline(comm.ServerConfig())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(connection, "_TURN", 3600.0)
        yield server
    server.close()


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(calls=st.lists(CALLS, min_size=1, max_size=4), choices=st.randoms(), turns=st.booleans())
def test_any_split_of_what_a_client_sends_gives_the_same_calls(
    offline: Offline, calls: list[Call], choices: Random, turns: bool
) -> None:
    sent = _interleaved(calls, choices)
    cuts = sorted(choices.choices(range(len(sent)), k=choices.choice([1, 3, 30, 300])))
    reads = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True) if a < b]
    whole = offline.run(_feed(offline, [sent], turns=False))
    split = offline.run(_feed(offline, reads, turns=turns))
    if not turns:
        assert split == whole
    for number, call in enumerate(calls):
        for written in (whole, split):
            response = _responses(written)[2 * number + 1]
            expected = call.messages[:1] if call.method == "Echo" else call.messages
            assert response.messages == expected
            assert response.status == 0
            # Who is answered before it has half-closed is told that it need not.
            assert response.reset in (None, frames.ErrorCode.NO_ERROR)


async def _feed(offline: Offline, reads: list[bytes], *, turns: bool) -> bytes:
    client, transport = offline.connect()
    for read in reads:
        client.data_received(read)
        if turns:
            await asyncio.sleep(0)
    for _ in range(1000):
        if not client.streams and not client.running:
            break
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # what was written last leaves now
    assert client.ended is None
    assert not client._incoming._frames._rest
    client.connection_lost(None)
    assert client.received.bytes == client.pending.bytes == 0
    return transport.written


def _interleaved(calls: list[Call], choices: Random) -> bytes:
    """What a client sends for these calls: each in its order, all mixed."""
    encoder = Encoder()
    sent = GREETING
    to_open = [(2 * number + 1, call) for number, call in enumerate(calls)]
    bodies: list[Iterator[bytes]] = []
    while to_open or bodies:
        if to_open and (not bodies or choices.random() < 0.3):
            # Streams are opened in the order of their ids, their blocks whole.
            number, call = to_open.pop(0)
            sent += _headers(number, call, encoder)
            bodies.append(_body(number, call))
        body = choices.choice(bodies)
        frame = next(body, None)
        if frame is None:
            bodies.remove(body)
        else:
            sent += frame
        if choices.random() < 0.1:
            sent += frames.frame(frames.PRIORITY, 0, 99, b"\0\0\0\1\1")
    return sent


def _headers(number: int, call: Call, encoder: Encoder) -> bytes:
    block = encoder.encode(list(request_fields(f"/test.Raw/{call.method}")))
    flags, sent, kind = 0, b"", frames.HEADERS
    before = b""
    padding = call.padding[0]
    if padding is not None:
        flags |= frames.PADDED
        before = bytes([padding])
    if call.priority:
        flags |= frames.WITH_PRIORITY
        before += b"\0\0\0\0\1"
    for at, size in enumerate(_sizes(len(block), call.fragments)):
        part, block = block[:size], block[size:]
        if at == 0:
            part = before + part + bytes(padding or 0)
        end = frames.END_HEADERS if not block else 0
        sent += frames.frame(kind, flags | end, number, part)
        flags, kind = 0, frames.CONTINUATION
    return sent


def _body(number: int, call: Call) -> Iterator[bytes]:
    messages = call.messages[:1] if call.method == "Echo" else call.messages
    body = b"".join(map(message, messages))
    for at, size in enumerate(_sizes(len(body), call.pieces)):
        part, body = body[:size], body[size:]
        padding = call.padding[at % len(call.padding)]
        flags = frames.END_STREAM if not body and not call.ends_alone else 0
        if padding is not None:
            flags |= frames.PADDED
            part = bytes([padding]) + part + bytes(padding)
        yield frames.frame(frames.DATA, flags, number, part)
    if call.ends_alone:
        yield frames.frame(frames.DATA, frames.END_STREAM, number)


def _sizes(total: int, sizes: list[int]) -> Iterator[int]:
    at = 0
    while total > 0:
        yield sizes[at % len(sizes)]
        total -= sizes[at % len(sizes)]
        at += 1


def _responses(written: bytes) -> dict[int, Response]:
    decoder = Decoder()
    found: dict[int, Response] = {}
    for kind, _, number, payload in FrameReader().feed(written):
        response = found.setdefault(number, Response())
        if kind == frames.HEADERS:
            fields = cast("dict[str, str]", dict(decoder.decode(payload)))
            if response.headers:
                response.trailers = fields
            else:
                response.headers = fields
        elif kind == frames.DATA:
            response.body += payload
        elif kind == frames.RST_STREAM:
            response.reset = frames.ErrorCode(frames.read_u32(payload))
    return found
