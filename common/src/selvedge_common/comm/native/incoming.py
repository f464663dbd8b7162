"""What comes in on a connection: the preface, then frames, each acted on as RFC 9113 says."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from selvedge_common import logs
from selvedge_common.comm.metrics import LIMITS
from selvedge_common.comm.native import frames
from selvedge_common.comm.native.allowance import Pace
from selvedge_common.comm.native.frames import (
    ConnectionFault,
    ErrorCode,
    FrameReader,
    Setting,
    StreamFault,
)
from selvedge_common.comm.native.headers import HARD_FACTOR, HeaderReader
from selvedge_common.comm.native.stream import Stream

if TYPE_CHECKING:
    from selvedge_common.comm.native.connection import Connection

log = logs.get_logger("comm")

OWN_WINDOW = 16 * 1024 * 1024
"""Of the connection, in bytes; it is the streams' windows that hold a client back."""
_RAPID = 0.01  # seconds in which a call that is cancelled was hardly meant
_MAX_FRAGMENTS = 64  # frames that one header block may come in
_MAX_FRAME = 128 * 1024  # the largest that is sent, whatever the client takes
_HEADER_TABLE = 4096  # bytes of HPACK's table unless a client allows fewer


class Incoming:
    """Acts on what a client sends.

    Args:
        connection: whose frames they are.

    Attributes:
        settled: the client's SETTINGS have come.
        pace: that of its pings.
        last_stream: the newest stream that the client opened.
    """

    def __init__(self, connection: "Connection") -> None:
        self.settled = False
        self.last_stream = 0
        self._connection = connection
        self._frames = FrameReader()
        self._headers = HeaderReader(connection.config.http2.max_header_list_bytes)
        self._handlers: tuple[Callable[[int, int, bytes], None], ...] = (
            self._on_data,
            self._on_headers,
            self._on_priority,
            self._on_rst_stream,
            self._on_settings,
            self._on_push_promise,
            self._on_ping,
            self._on_goaway,
            self._on_window_update,
            self._on_continuation,
        )
        self._data: deque[bytes] = deque()
        self._begun: Iterator[tuple[int, int, int, bytes]] | None = None  # frames being acted on
        self._preface = frames.PREFACE  # what is still to come of it
        self._block: _HeaderBlock | None = None
        # Streams that ended here first: the client may have sent more before it knew.
        self._forgiven: dict[int, None] = {}
        self._owed = 0  # credit of the connection that the client has yet to be given back
        self._receive_window = OWN_WINDOW
        self.pace = Pace(connection.config.keepalive)

    def add(self, data: bytes) -> None:
        """Take what has come, to be acted on by `work`."""
        self._data.append(data)

    def work(self, until: float) -> bool:
        """Act on what is complete, until a moment of `time.perf_counter`. Tells if that was all.

        Raises:
            ConnectionFault: the client broke the protocol, or a bound.
        """
        while self._begun is not None or self._data:
            if self._begun is None:
                data = self._data.popleft()
                if self._preface and not (data := self._after_preface(data)):
                    continue
                self._begun = self._frames.feed(data)
            for kind, flags, number, payload in self._begun:
                self._act(kind, flags, number, payload)
                if self._connection.ended is not None:
                    return True
                if time.perf_counter() > until:
                    return False
            self._begun = None
        return True

    def _act(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A header block is interrupted.")
        if not self.settled and kind != frames.SETTINGS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "The first frame is not SETTINGS.")
        if kind > frames.CONTINUATION:
            self._connection.spend(len(payload))
            return
        try:
            self._handlers[kind](flags, number, payload)
        except StreamFault as fault:
            self._fail_stream(number, fault)

    def stop(self) -> None:
        """Wait for nothing any more; the connection is over."""
        self._forget_block()
        self._data.clear()

    def forgive(self, number: int) -> None:
        """Take no offence at what still comes on a stream that ended here first."""
        self._forgiven[number] = None
        if len(self._forgiven) > 2 * self._connection.config.max_concurrent_streams + 100:
            del self._forgiven[next(iter(self._forgiven))]

    # Its frames

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        flow = len(payload)
        self._receive_window -= flow
        if self._receive_window < 0:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, "DATA is more than the connection's window allows."
            )
        self._owed += flow
        if self._owed * 2 >= OWN_WINDOW:
            self._receive_window += self._owed
            self._connection.write(frames.window_update(0, self._owed))
            self._owed = 0
        if flags & frames.PADDED:
            payload = frames.unpadded(flags, payload)
        end = bool(flags & frames.END_STREAM)
        if not payload and not end:
            self._connection.spend(flow)
        stream = self._connection.streams.get(number)
        if stream is None:
            self._check_not_idle(number)
            if number not in self._forgiven:
                raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA came on a closed stream.")
            self._connection.spend(0)
            if end:
                del self._forgiven[number]
            return
        if payload:
            self._connection.worked(flow)
        stream.on_data(payload, flow, end)

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number % 2:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A stream's id is even.")
        fragment = frames.unpadded(flags, payload)
        fault = None
        try:
            fragment = frames.without_priority(number, flags, fragment)
        except StreamFault as error:
            # Its block is decoded all the same: it may change the table.
            fault, fragment = error, fragment[5:]
        block = _HeaderBlock(number, bool(flags & frames.END_STREAM), fault)
        self._add_fragment(block, fragment, flags)

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        block = self._block
        if block is None or block.number != number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION continues nothing.")
        self._add_fragment(block, payload, flags)

    def _add_fragment(self, block: "_HeaderBlock", fragment: bytes, flags: int) -> None:
        block.fragments.append(fragment)
        block.size += len(fragment)
        # Never larger than what it decodes to.
        limit = HARD_FACTOR * self._connection.config.http2.max_header_list_bytes
        if block.size > limit or len(block.fragments) > _MAX_FRAGMENTS:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"The headers of a call take more than {limit} bytes or {_MAX_FRAGMENTS} frames.",
                limit="max_header_list_bytes",
            )
        if not flags & frames.END_HEADERS:
            if self._block is None:
                self._block = block
                block.timer = self._connection.loop.call_later(
                    self._connection.config.handshake_timeout, self._block_is_late
                )
            return
        self._forget_block()
        self._on_block(block)

    def _forget_block(self) -> None:
        if self._block is not None and self._block.timer is not None:
            self._block.timer.cancel()
        self._block = None

    def _block_is_late(self) -> None:
        if self._block is not None:
            why = "The headers of a call were not finished in time."
            late = ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, why, limit="handshake_timeout")
            self._connection.fail(late)

    def _on_block(self, block: "_HeaderBlock") -> None:
        number, data = block.number, b"".join(block.fragments)
        stream = self._connection.streams.get(number)
        if stream is not None:
            self._on_trailers(stream, block, data)
            return
        if number <= self.last_stream:
            if number not in self._forgiven:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS came on a closed stream.")
            self._skip(data)
            if block.end:
                del self._forgiven[number]
            return
        self.last_stream = number
        if number > self._connection.last_served:
            # The client will see that it was not served.
            self._skip(data)
            self.forgive(number)
            return
        request = self._headers.request(data)
        limit = self._connection.config.http2.max_header_list_bytes
        # It was work, and will be refused.
        if request.size > limit and not self._connection.affords(request.size):
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"Too many calls came whose headers take more than {limit} bytes.",
                limit="max_header_list_bytes",
            )
        if block.fault is not None:
            raise block.fault
        if len(self._connection.streams) >= self._connection.config.max_concurrent_streams or (
            self._connection.running >= 2 * self._connection.config.max_concurrent_streams
        ):
            LIMITS.labels("max_concurrent_streams").inc()
            raise StreamFault(ErrorCode.REFUSED_STREAM, "There are too many streams.")
        self._connection.open(number, request, half_closed=block.end)

    def _skip(self, data: bytes) -> None:
        """Decode a block that nobody wants, since it may change the table."""
        self._connection.spend(len(data))
        self._headers.skip(data)

    def _on_trailers(self, stream: Stream, block: "_HeaderBlock", data: bytes) -> None:
        if stream.half_closed:
            self._headers.skip(data)
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS came after the stream's end.")
        self._connection.spend(self._headers.trailers(data))
        if block.fault is not None:
            raise block.fault
        if not block.end:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "Trailers do not end their stream.")
        stream.on_half_close()

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        self._check_stream(number)
        self._connection.spend(len(payload))
        if len(payload) != 5:
            raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, "A PRIORITY frame has not five bytes.")
        frames.check_priority(number, payload)

    def _on_rst_stream(self, flags: int, number: int, payload: bytes) -> None:
        frames.read_u32(payload)
        self._check_stream(number)
        stream = self._connection.streams.get(number)
        if stream is None:
            self._check_not_idle(number)
            self._connection.spend(len(payload))
            return
        # One that has run for a while was meant, and is bounded as calls are.
        young = self._connection.loop.time() - stream.since < _RAPID
        if young and not stream.answered:
            self._connection.spend_reset()
        stream.on_lost()

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS came on a stream.")
        self._connection.spend(len(payload))
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(
                    ErrorCode.FRAME_SIZE_ERROR, "An acknowledgement of SETTINGS is not empty."
                )
            return
        # Of several values for one, the last holds; what each would cost on the way is spared.
        for key, value in dict(frames.read_settings(payload)).items():
            self._on_setting(key, value)
        self._connection.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if not self.settled:
            self.settled = True
            self._connection.keep_alive()

    def _on_setting(self, key: int, value: int) -> None:
        match key:
            case Setting.HEADER_TABLE_SIZE if value < _HEADER_TABLE:
                self._connection.use_no_table()
            case Setting.ENABLE_PUSH if value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1.")
            case Setting.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_WINDOW:
                    raise ConnectionFault(
                        ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large."
                    )
                self._shift_windows(value - self._connection.initial_window)
                self._connection.initial_window = value
            case Setting.MAX_FRAME_SIZE:
                if not frames.DEFAULT_FRAME_BYTES <= value < 1 << 24:
                    raise ConnectionFault(
                        ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of its range."
                    )
                self._connection.max_frame = min(value, _MAX_FRAME)

    def _shift_windows(self, change: int) -> None:
        self._connection.spend(len(self._connection.streams))  # it is work for each
        for stream in self._connection.streams.values():
            stream.send_window += change
            if stream.send_window > frames.MAX_WINDOW:
                raise ConnectionFault(
                    ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE makes a window too large."
                )
            if stream.sendable:
                self._connection.want(stream)

    def _on_push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "Clients do not push.")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING came on a stream.")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "A PING has not eight bytes.")
        self._connection.spend(len(payload))
        if flags & frames.ACK:
            self._connection.on_acknowledged(payload)
            return
        if self.pace.too_fast(self._connection.loop.time()):
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings", limit="max_ping_strikes"
            )
        self._connection.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY came on a stream.")
        self._connection.spend(len(payload))

    def _on_window_update(self, flags: int, number: int, payload: bytes) -> None:
        increment = frames.read_u32(payload) & frames.MAX_WINDOW
        self._connection.spend(len(payload))
        if number:
            stream = self._connection.streams.get(number)
            if stream is not None:
                stream.on_window(increment)
            else:
                self._check_not_idle(number)
            return
        if not increment:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A WINDOW_UPDATE adds nothing.")
        self._connection.send_window += increment
        if self._connection.send_window > frames.MAX_WINDOW:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, "The connection's window is too large."
            )

    # Checks

    def _check_stream(self, number: int) -> None:
        if not number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A frame of a stream came on none.")

    def _check_not_idle(self, number: int) -> None:
        if not number % 2 or number > self.last_stream:
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, "A frame came on a stream that was never opened."
            )

    def _fail_stream(self, number: int, fault: StreamFault) -> None:
        log.debug("stream ended", peer=self._connection.peer, stream=number, why=str(fault))
        self._connection.spend_reset()
        stream = self._connection.streams.get(number)
        if stream is not None:
            stream.fail(fault.code)
        else:
            self._connection.write(frames.reset(number, fault.code))
            self.forgive(number)

    def _after_preface(self, data: bytes) -> bytes:
        """What follows the preface, which is not necessarily there at once."""
        expected = self._preface
        if data[: len(expected)] == expected[: len(data)]:
            if expected is frames.PREFACE:
                self._connection.greet()
            self._preface = expected[len(data) :]
            return data[len(expected) :]
        if not self._connection.secure and data[:2] == b"\x16\x03":
            why = "The client speaks TLS, and this port is plaintext; switch one of them."
        elif data[:5] in (b"GET /", b"POST ", b"HEAD ", b"PUT /"):
            why = "The client speaks HTTP/1.1, and this port is gRPC's; use a gRPC client."
            body = why.encode() + b"\n"
            self._connection.turn_away(
                "not_http2",
                why,
                b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\n"
                b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body,
            )
            return b""
        else:
            why = "What the client sent first is not HTTP/2."
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, why, reason="not_http2")


class _HeaderBlock:
    """A header block that is not complete yet."""

    __slots__ = ("end", "fault", "fragments", "number", "size", "timer")

    def __init__(self, number: int, end: bool, fault: StreamFault | None) -> None:
        self.number = number
        self.end = end
        self.fault = fault
        self.fragments: list[bytes] = []
        self.size = 0
        self.timer: asyncio.TimerHandle | None = None
