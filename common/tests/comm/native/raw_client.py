"""An HTTP/2 client that says whatever a test wants, frame by frame."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from hpack import Decoder, Encoder, NeverIndexedHeaderTuple

from selvedge_common import comm
from selvedge_common.comm.native import frames
from selvedge_common.comm.native.frames import ErrorCode, Setting

Fields = Sequence[tuple[str, str]]
PATIENCE = 10.0  # seconds for anything that a test waits for
GREETING = frames.PREFACE + frames.settings({})


class Frame(NamedTuple):
    """A frame as it came from the server."""

    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass
class Response:
    """All that came on one stream until it ended."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    reset: ErrorCode | None = None

    @property
    def status(self) -> int:
        """The grpc-status; -1 if there is none."""
        return int((self.trailers or self.headers).get("grpc-status", "-1"))

    @property
    def sentence(self) -> str:
        """The grpc-message as it travels."""
        return (self.trailers or self.headers).get("grpc-message", "")

    @property
    def messages(self) -> list[bytes]:
        """The messages, prefixes taken off."""
        return list(split(self.body))


class RawClient:
    """One connection. Nothing is answered for a test, and no window is opened, but by `serve`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.encoder = Encoder()
        self._decoder = Decoder(1 << 24)
        self._last_stream = -1

    @classmethod
    async def connect(
        cls,
        server: comm.GRPCServer,
        *,
        greeting: bytes = GREETING,
        receive_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> "RawClient":
        """Connect and greet.

        Args:
            receive_buffer: bytes that the system takes for a client which does not read.
        """
        host, _, port = server.address.rpartition(":")
        sock = socket.socket(proto=socket.IPPROTO_TCP)  # then asyncio switches Nagle's delay off
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        # The stream's own limit is as small, so that it does not read ahead either.
        reader, writer = await asyncio.open_connection(
            sock=sock,
            ssl=tls,
            server_hostname="localhost" if tls else None,
            limit=receive_buffer or 1 << 20,
        )
        client = cls(reader, writer)
        client.send(greeting)
        return client

    # What it says

    def send(self, *data: bytes) -> None:
        """Write bytes, whatever they are."""
        self.writer.write(b"".join(data))

    async def pour(self, data: bytes) -> None:
        """Write much, as fast as the server takes it, and do not mind if it closes."""
        try:
            for at in range(0, len(data), 1 << 16):
                self.writer.write(data[at : at + (1 << 16)])
                await self.writer.drain()
        except ConnectionError:
            return

    def next_stream(self) -> int:
        """The id of a stream that was not opened yet."""
        self._last_stream += 2
        return self._last_stream

    def block(self, path: str = "/test.Raw/Echo", *extra: tuple[str, str]) -> bytes:
        """The header block of a gRPC request; an entry of `extra` replaces one of the usual."""
        return self.encoder.encode(list(request_fields(path, *extra)))

    def open(self, path: str, *extra: tuple[str, str], end: bool = False) -> int:
        """Open a stream."""
        number = self.next_stream()
        self.send(headers(number, self.block(path, *extra), end=end))
        return number

    def call(self, path: str, *messages: bytes, extra: Fields = ()) -> int:
        """Open a stream, send messages on it and half-close."""
        number = self.open(path, *extra)
        self.send(data(number, b"".join(map(message, messages)), end=True))
        return number

    def reset(self, number: int, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """Cancel a stream."""
        self.send(frames.reset(number, code))

    def close(self) -> None:
        """Leave at once."""
        cast("asyncio.Transport", self.writer.transport).abort()

    # What it hears

    async def frame(self) -> Frame | None:
        """The next frame; None once the server has closed."""
        try:
            async with asyncio.timeout(PATIENCE):
                head = await self.reader.readexactly(frames.HEAD_BYTES)
                payload = await self.reader.readexactly(int.from_bytes(head[:3]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Frame(head[3], head[4], int.from_bytes(head[5:]), payload)

    async def until(self, kind: int, number: int | None = None) -> Frame:
        """The next frame of that kind (on that stream), others left out."""
        while (got := await self.frame()) is not None:
            if got.kind == kind and number in (None, got.stream):
                return got
        raise AssertionError(f"The connection ended before a frame of kind {kind} came.")

    async def goaway(self) -> tuple[ErrorCode, str]:
        """Why the server ends the connection."""
        payload = (await self.until(frames.GOAWAY)).payload
        return ErrorCode(struct.unpack_from(">L", payload, 4)[0]), payload[8:].decode()

    async def closed(self) -> None:
        """Wait until the server has closed."""
        while await self.frame() is not None:
            pass

    async def settle(self) -> None:
        """Wait until the server has acted on everything sent so far."""
        self.send(frames.frame(frames.PING, 0, 0, b"settled?"))
        while (await self.until(frames.PING)).payload != b"settled?":
            pass

    async def response(self, number: int, *, window: int = 0) -> Response:
        """Everything of one stream; what comes on others is lost.

        Args:
            window: what to give back for each DATA frame, on the stream alone.
        """
        responses = await self.responses(number, window=window)
        return responses[number]

    async def responses(self, *numbers: int, window: int = 0) -> dict[int, Response]:
        """The same for several streams at once."""
        found = {number: Response() for number in numbers}
        waiting = set(numbers)
        while waiting:
            got = await self.frame()
            assert got is not None, f"The connection ended before the streams {waiting}."
            if got.kind == frames.HEADERS:
                block = got.payload
                while not got.flags & frames.END_HEADERS:
                    following = await self.frame()
                    assert following is not None
                    assert (following.kind, following.stream) == (frames.CONTINUATION, got.stream)
                    block += following.payload
                    got = got._replace(flags=got.flags | following.flags)
                fields = self.decode(block)
            if got.stream not in waiting:
                continue
            response = found[got.stream]
            if got.kind == frames.HEADERS:
                if response.headers:
                    response.trailers = fields
                else:
                    response.headers = fields
            elif got.kind == frames.DATA:
                response.body += got.payload
                if window:
                    self.send(frames.window_update(got.stream, window))
            elif got.kind == frames.RST_STREAM:
                response.reset = ErrorCode(frames.read_u32(got.payload))
            ends = got.kind in (frames.HEADERS, frames.DATA) and got.flags & frames.END_STREAM
            if ends or got.kind == frames.RST_STREAM:
                waiting.discard(got.stream)
        return found

    def decode(self, block: bytes) -> dict[str, str]:
        """The fields of a header block; several values of a name become one, as lists do."""
        fields: dict[str, str] = {}
        for name, value in cast("list[tuple[str, str]]", self._decoder.decode(block)):
            fields[name] = f"{fields[name]},{value}" if name in fields else value
        return fields

    @property
    def decoder(self) -> Any:
        """Its HPACK decoder."""
        return self._decoder


def request_fields(path: str, *extra: tuple[str, str]) -> Fields:
    """The fields of a gRPC request; an entry of `extra` replaces one of the usual."""
    replaced = {name for name, _ in extra}
    usual = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    kept = [entry for entry in usual if entry[0] not in replaced]
    pseudo = [entry for entry in (*kept, *extra) if entry[0].startswith(":")]
    return pseudo + [entry for entry in (*kept, *extra) if not entry[0].startswith(":")]


def unindexed(fields: Fields) -> bytes:
    """A header block that leaves the table as it is."""
    return Encoder().encode([NeverIndexedHeaderTuple(*entry) for entry in fields])


def headers(number: int, block: bytes, *, end: bool = False) -> bytes:
    """A request in one HEADERS frame."""
    flags = frames.END_HEADERS | (frames.END_STREAM if end else 0)
    return frames.frame(frames.HEADERS, flags, number, block)


def data(number: int, payload: bytes, *, end: bool = False, size: int = 16384) -> bytes:
    """Payload in as many DATA frames as it needs."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    return b"".join(
        frames.frame(
            frames.DATA, frames.END_STREAM if end and at == len(parts) - 1 else 0, number, part
        )
        for at, part in enumerate(parts)
    )


def message(content: bytes, flag: int = 0) -> bytes:
    """A gRPC message with its prefix."""
    return struct.pack(">BL", flag, len(content)) + content


def split(body: bytes) -> Sequence[bytes]:
    """The messages in a body."""
    found = []
    while body:
        size = int.from_bytes(body[1:5])
        found.append(body[5 : 5 + size])
        body = body[5 + size :]
    return found


def opening(settings: dict[Setting, int]) -> bytes:
    """A greeting with settings."""
    return frames.PREFACE + frames.settings(settings)
