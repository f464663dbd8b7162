"""One input, one connection: what has to hold whatever a client sends."""

import asyncio
import logging
from typing import Any

from common.tests.comm.native.offline import Offline

from selvedge_common import comm
from selvedge_common.comm import calls
from selvedge_common.comm.native import call as native_call
from selvedge_common.comm.native import frames, inbox, message_stream
from selvedge_common.comm.native.connection import RECEIVED, STREAM_COST, Connection
from selvedge_common.comm.native.frames import FrameReader
from selvedge_common.comm.pending import PROCESS

# Small enough for an input of some kilobytes to pass each of them.
CONFIG = comm.ServerConfig(
    max_receive_bytes=8000,
    max_send_bytes=20_000,
    max_concurrent_streams=4,
    stream=comm.StreamConfig(
        low_mark=1000, high_mark=4000, max_pending=30_000, max_pending_in_process=60_000
    ),
    http2=comm.Http2Config(
        max_header_list_bytes=1000,
        receive_window=20_000,
        max_receiving_in_process=100_000,
        max_pending=60_000,
        max_unread_bytes=200,
        overhead_bytes=20_000,
        resets=6,
    ),
)
PAUSE, RESUME, TURN, HALF_CLOSE, RAW = range(0x10, 0x15)
"""Operations of an input beside the kinds of frames."""


class Target(Offline):
    """A native server to which inputs are fed as connections."""

    def __init__(self) -> None:
        logging.disable(logging.WARNING)
        super().__init__(CONFIG)
        self.failures: list[object] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        # What handlers' exceptions become statuses by: none of them is a handler's own fault here.
        for module in (calls, native_call, message_stream):
            module.status_of = self._status_of  # type: ignore[attr-defined]

    def feed(self, data: bytes) -> bytes:
        """Act an input out as one connection, from its beginning to its loss.

        Args:
            data: how it is cut, and operations; see `operations`.

        Returns:
            What the server wrote.

        Raises:
            AssertionError: something does not hold.
            Exception: what escaped from the connection.
        """
        return self.run(self._feed(data))

    async def _feed(self, data: bytes) -> bytes:
        connection, transport = self.connect()
        cut = data[0] if data else 0
        received = b""

        def receive(size: int) -> None:
            nonlocal received
            while len(received) >= size > 0 or (received and not size):
                part = received[:size] if size else received
                received = received[len(part) :]
                connection.data_received(part)
                self._check(connection)

        for operation, content in operations(data[1:]):
            if operation < PAUSE or operation == RAW:
                received += content
                receive(cut)
                continue
            receive(0)
            if operation == PAUSE and not connection.paused:
                connection.pause_writing()
            elif operation == RESUME and connection.paused:
                connection.resume_writing()
            elif operation == TURN:
                await asyncio.sleep(0)
            elif operation == HALF_CLOSE:
                connection.eof_received()
            self._check(connection)
        receive(0)
        for _ in range(4):
            await asyncio.sleep(0)
            self._check(connection)
        if connection.paused:
            connection.resume_writing()
        await asyncio.sleep(0)
        self._check(connection)
        connection.connection_lost(None)
        await self._check_nothing_left(connection)
        if b"HTTP/1.1 505" not in transport.written:
            _check_frames(transport.written)
        return transport.written

    def _check(self, connection: Connection) -> None:
        http2 = CONFIG.http2
        assert not self.failures, self.failures
        assert connection.ended != "internal_error", "Something was raised; see the log."
        assert RECEIVED.bytes == connection.received.bytes
        assert not inbox._NOTHING.held_bytes
        assert inbox._NOTHING.refusal is None
        streams = connection.streams.values()
        held = [stream.inbox.held for stream in streams]
        assert sum(held) <= http2.max_receiving_in_process
        headers = [stream.request.size for stream in streams]
        calls = STREAM_COST * len(streams)
        assert connection.received.bytes == sum(held) + sum(headers) + calls
        assert connection.pending.bytes == sum(stream.outbox.bytes for stream in streams)
        # The stream that passes it keeps the message that it has begun.
        assert connection.pending.bytes <= http2.max_pending + CONFIG.max_send_bytes
        assert len(streams) <= CONFIG.max_concurrent_streams
        assert connection.running <= 2 * CONFIG.max_concurrent_streams
        assert len(connection._incoming._forgiven) <= 2 * CONFIG.max_concurrent_streams + 100
        assert (
            len(connection._incoming._frames._rest) < frames.HEAD_BYTES + frames.DEFAULT_FRAME_BYTES
        )
        assert set(connection._ready) <= set(streams)
        if connection.ended is not None:
            assert not connection.streams
            assert connection._incoming._block is None

    async def _check_nothing_left(self, connection: Connection) -> None:
        for _ in range(50):
            if not self.native._running:
                break
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not self.failures, self.failures
        assert not self.native._running
        assert not self.native._connections
        assert connection.running == 0
        assert not connection.streams
        assert connection.pending.bytes == connection.received.bytes == RECEIVED.bytes == 0
        assert not RECEIVED.holders
        assert PROCESS.pending == 0
        assert not PROCESS.streams
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, others
        timers = self.loop._scheduled  # type: ignore[attr-defined]
        assert all(timer.cancelled() for timer in timers), timers

    def _status_of(self, error: Exception, *_: str) -> Any:
        if not isinstance(error, comm.StatusError):
            self.failures.append(error)
            raise error
        return error.code, error.details


def operations(data: bytes) -> list[tuple[int, bytes]]:
    """What an input says: frames with a length that is right, bytes as they are, and events.

    Each operation is its number, then for a frame its flags, its stream and the length of its
    payload (two bytes), for raw bytes their length. The first says with what it begins.
    """
    found: list[tuple[int, bytes]] = []
    if not data or not data[0] & 0x80:
        found.append((RAW, frames.PREFACE + frames.settings({})))
    at = 1
    while at < len(data):
        operation = data[at] % (RAW + 1)
        at += 1
        if PAUSE <= operation < RAW:
            found.append((operation, b""))
            continue
        if operation == RAW:
            size = int.from_bytes(data[at : at + 2])
            content = data[at + 2 : at + 2 + size]
            at += 2 + size
            found.append((RAW, content))
            continue
        flags, stream = (data[at], data[at + 1]) if at + 1 < len(data) else (0, 0)
        size = int.from_bytes(data[at + 2 : at + 4])
        payload = data[at + 4 : at + 4 + size][: frames.DEFAULT_FRAME_BYTES]
        at += 4 + size
        found.append((operation, frames.frame(operation, flags, stream, payload)))
    return found


def _check_frames(written: bytes) -> None:
    reader = FrameReader(1 << 24)
    for kind, _, _, _ in reader.feed(written):
        assert kind <= frames.CONTINUATION
    assert not reader._rest, "A frame is cut short."
