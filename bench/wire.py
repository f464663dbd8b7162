"""The loops of the client in Python. They know only bytes, so that the services and the raw server
are measured by the very same code."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio

# The stubs of grpc.aio know neither this nor streams that are read and written by hand.
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]

_LENGTH = struct.Struct(">I")


def pack(messages: Iterable[bytes]) -> bytes:
    """Messages one after the other, each behind its length in four bytes."""
    return b"".join(_LENGTH.pack(len(each)) + each for each in messages)


def unpack(content: bytes) -> Iterator[bytes]:
    """The messages that were packed."""
    place = 0
    while place < len(content):
        (length,) = _LENGTH.unpack_from(content, place)
        place += _LENGTH.size + length
        yield content[place - length : place]


def write_packed(file: Path, messages: Iterable[bytes]) -> None:
    """Pack messages into a file."""
    file.write_bytes(pack(messages))


def read_packed(file: Path) -> list[bytes]:
    """The messages that were packed into a file."""
    return list(unpack(file.read_bytes()))


async def call_all(
    call: Callable[[bytes], Awaitable[bytes]], requests: Iterable[bytes], in_flight: int
) -> tuple[float, list[bytes]]:
    """Make unary calls, so many at a time; gives the seconds they took, and answers in no order."""
    remaining, answers = iter(requests), list[bytes]()

    async def work() -> None:
        for request in remaining:
            answers.append(await call(request))

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return time.perf_counter() - started, answers


async def pipeline(stream: Any, requests: Sequence[bytes]) -> tuple[float, list[bytes]]:
    """Write all requests to a stream without waiting for answers, which are read meanwhile.

    Gives the seconds until the last answer, and the answers.
    """

    async def write() -> None:
        for request in requests:
            await stream.write(request)

    started = time.perf_counter()
    writing = asyncio.create_task(write())
    answers = [await read(stream) for _ in requests]
    seconds = time.perf_counter() - started
    await writing
    return seconds, answers


async def exchange(stream: Any, request: bytes) -> bytes:
    """Write a message and read the next one."""
    await stream.write(request)
    return await read(stream)


async def read(stream: Any) -> bytes:
    """The next message.

    Raises:
        ConnectionError: the stream ended instead.
    """
    message = await stream.read()
    if message is EOF:
        raise ConnectionError(f"the stream ended: {await stream.code()} {await stream.details()}")
    assert isinstance(message, bytes)
    return message
