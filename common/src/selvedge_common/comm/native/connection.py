"""One client's connection (RFC 9113): its frames, its windows, its bounds, and its end."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Protocol, cast

import grpc

from selvedge_common import logs
from selvedge_common.comm.errors import StatusError
from selvedge_common.comm.metrics import CONNECTIONS_ENDED, LIMITS
from selvedge_common.comm.native import frames
from selvedge_common.comm.native.allowance import Allowance
from selvedge_common.comm.native.frames import (
    ConnectionFault,
    ErrorCode,
    FrameReader,
    Setting,
    StreamFault,
)
from selvedge_common.comm.native.headers import HeaderReader, Request
from selvedge_common.comm.native.inbox import Holdings
from selvedge_common.comm.native.stream import Stream
from selvedge_common.comm.native.tally import Tally
from selvedge_common.comm.native.tls import PeerIdentity
from selvedge_common.comm.settings import ServerConfig

log = logs.get_logger("comm")

_OWN_WINDOW = (
    16 * 1024 * 1024
)  # of the connection; the streams' windows are what holds a client back
_WRITE_AT = 256 * 1024
_TRANSPORT_HIGH, _TRANSPORT_LOW = 128 * 1024, 32 * 1024
_FRAME_COST = 32  # what a frame counts beside its bytes when it carries nothing
_LINGER = 1.0  # seconds that a client may take to read why its connection ends
_MAX_FRAGMENTS = 64  # frames that one header block may come in
_HEADER_TABLE = 4096  # bytes of HPACK's table unless a client allows fewer
_NO_TABLE = b"\x20"  # how a block says that none are used (RFC 7541, section 6.3)


class Host(Protocol):
    """The server, as a connection needs it."""

    def open(self, stream: Stream) -> None:
        """Serve a new stream."""

    def arrived(self, connection: "Connection") -> None:
        """The connection is made."""

    def left(self, connection: "Connection") -> None:
        """The connection is gone."""


class Connection(asyncio.Protocol):
    """Speaks HTTP/2 with one client.

    Args:
        host: serves its streams.
        config: the bounds.
        secure: whether it is carried by TLS.
    """

    def __init__(self, host: Host, config: ServerConfig, *, secure: bool) -> None:
        self.config = config
        self.streams: dict[int, Stream] = {}
        self.running = 0  # handlers, also those of streams that are over
        self.identity = PeerIdentity()
        self.tally = Tally()
        self.initial_window = frames.DEFAULT_WINDOW  # the client's, for its streams
        self.send_window = frames.DEFAULT_WINDOW
        self.max_frame = frames.DEFAULT_FRAME_BYTES
        self.paused = False  # the system takes no more for now
        self.ended: str | None = None  # why, once it is
        self.holdings = Holdings(
            config.http2.max_receiving_in_process, lambda: list(self.streams.values())
        )
        self._host = host
        self._secure = secure
        self.loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._frames = FrameReader()
        self._headers = HeaderReader(config.http2.max_header_list_bytes)
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
        self._preface = frames.PREFACE  # what is still to come of it
        self._settled = False  # the client's SETTINGS have come
        self._block: _HeaderBlock | None = None
        self._last_stream = 0
        self._last_served = frames.MAX_STREAM  # lower once the connection goes away
        # Streams that ended here first: the client may have sent more before it knew.
        self._forgiven: dict[int, None] = {}
        self._owed = 0  # credit of the connection that the client has yet to be given back
        self._receive_window = _OWN_WINDOW
        self._pending = 0
        self._ready: dict[Stream, None] = {}
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._in_turn = False
        self._flushing = False
        self._unread = 0  # bytes beside messages that wait for the client to read
        self._table_change = b""  # what the next header block has to begin with
        self._overhead = Allowance(config.http2.overhead_bytes, config.http2.overhead_bytes / 60)
        self._resets = Allowance(config.http2.resets, config.http2.resets / 10)
        self._last_heard = 0.0
        self._last_ping = float("-inf")
        self._strikes = 0
        self._timer: asyncio.TimerHandle | None = None

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        transport = self._transport
        self.identity = PeerIdentity.of(transport)
        self._timer = self.loop.call_later(self.config.handshake_timeout, self._not_settled)
        self._host.arrived(self)
        if self._secure and not self.identity.speaks_http2:
            why = "The client did not ask for h2 by ALPN; gRPC over TLS needs that."
            log.info("connection ended", peer=self.peer, reason="alpn", why=why)
            self._leave("alpn")
        if self.ended is not None:
            return
        transport.set_write_buffer_limits(high=_TRANSPORT_HIGH, low=_TRANSPORT_LOW)
        http2 = self.config.http2
        self.write(
            frames.settings(
                {
                    Setting.MAX_CONCURRENT_STREAMS: self.config.max_concurrent_streams,
                    Setting.INITIAL_WINDOW_SIZE: http2.receive_window,
                    Setting.MAX_HEADER_LIST_SIZE: http2.max_header_list_bytes,
                }
            )
            + frames.window_update(0, _OWN_WINDOW - frames.DEFAULT_WINDOW)
        )
        self._last_heard = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Act on everything that is complete, and write all answers at once."""
        if self.ended is not None:
            return
        self._last_heard = self.loop.time()
        self._in_turn = True
        try:
            if self._preface and not (data := self._after_preface(data)):
                return
            handlers = self._handlers
            for kind, flags, number, payload in self._frames.feed(data):
                if self._block is not None and kind != frames.CONTINUATION:
                    raise ConnectionFault(
                        ErrorCode.PROTOCOL_ERROR, "A header block is interrupted."
                    )
                if not self._settled and kind != frames.SETTINGS:
                    raise ConnectionFault(
                        ErrorCode.PROTOCOL_ERROR, "The first frame is not SETTINGS."
                    )
                if kind > frames.CONTINUATION:
                    self._spend(len(payload))
                    continue
                try:
                    handlers[kind](flags, number, payload)
                except StreamFault as fault:
                    self._fail_stream(number, fault)
                if self.ended is not None:
                    return
        except ConnectionFault as fault:
            self.fail(fault)
        except Exception:
            log.exception("fault of a connection", peer=self.peer)
            self.fail(_FAULT)
        finally:
            self._in_turn = False
            self._flush()

    def eof_received(self) -> bool:
        """The client sends no more, and so has gone; gRPC knows no half-closed connections."""
        self._end("client")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._end("client" if error is None else "lost")
        self._stop_timer()
        self._host.left(self)

    def pause_writing(self) -> None:
        """The system takes no more for now."""
        self.paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self.paused = False
        self._unread = 0
        if self._ready:
            self._flush()

    # What streams and calls ask of it

    @property
    def peer(self) -> str:
        """The client's address, in gRPC's form."""
        return self.identity.address

    @property
    def idle(self) -> bool:
        """Whether it is open and carries no call."""
        return self.ended is None and not self.streams and not self.running

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """What TLS knows of the client, under grpcio's keys."""
        return self.identity.auth_context()

    def write(self, *parts: bytes | memoryview) -> None:
        """Have these bytes written, in this order, by the end of the loop's turn."""
        if self.ended is not None:
            return
        size = sum(map(len, parts))
        self._out += parts
        self._out_bytes += size
        if self.paused:
            self._add_unread(size)
        if self._out_bytes >= _WRITE_AT:
            self._hand_over()
        elif not self._in_turn and not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _add_unread(self, size: int) -> None:
        """Count an answer that waits while messages do not leave at all, such as a status: a client
        that reads none cannot ask for ever."""
        self._unread += size
        limit = self.config.http2.max_unread_bytes
        if self._unread > limit:
            self._unread = -frames.MAX_WINDOW  # what follows is the last, and not counted
            sentence = f"More than {limit} bytes of answers were not read."
            self.fail(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, sentence, "max_unread_bytes"))

    def write_headers(self, number: int, block: bytes, *, end: bool) -> None:
        """Write a header block, in as many frames as it needs."""
        flags = frames.END_STREAM if end else 0
        block, self._table_change = self._table_change + block, b""
        if len(block) <= self.max_frame:
            self.write(frames.frame(frames.HEADERS, flags | frames.END_HEADERS, number, block))
            return
        self.write(frames.frame(frames.HEADERS, flags, number, block[: self.max_frame]))
        for at in range(self.max_frame, len(block), self.max_frame):
            part = block[at : at + self.max_frame]
            last = frames.END_HEADERS if at + len(part) == len(block) else 0
            self.write(frames.frame(frames.CONTINUATION, last, number, part))

    def want(self, stream: Stream) -> None:
        """Give a stream its turn once there is room."""
        self._ready[stream] = None
        if self.send_window > 0 and not self.paused and not self._in_turn and not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def enqueued(self, size: int) -> None:
        """Count what waits in a stream. Above the bound, the stream with the most is ended."""
        self._pending += size
        if size > 0 and self._pending > self.config.http2.max_pending:
            most = max(self.streams.values(), key=lambda stream: stream.pending)
            most.refuse(
                StatusError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{self._pending} bytes wait for one connection, above the limit of "
                    f"{self.config.http2.max_pending} bytes, and most of them, {most.pending}, on "
                    "this stream; read faster.",
                ),
                "max_pending_of_connection",
            )

    def worked(self, size: int, extra: int = 4 * _FRAME_COST) -> None:
        """Something useful went to the client, or came from it: that earns it some overhead, and
        pings."""
        self._strikes = 0
        self._overhead.earn(size + extra)

    def forget(self, stream: Stream) -> None:
        """A stream is over."""
        if self.streams.pop(stream.number, None) is not None:
            self.holdings.add(-stream.request.size)
        self._ready.pop(stream, None)
        if not stream.half_closed:
            self._forgive(stream.number)
        if not self.streams and self._last_served != frames.MAX_STREAM:
            self.loop.call_soon(self.close_if_idle)

    def completed(self) -> None:
        """A call ran to its end: that earns the client a reset."""
        self._resets.earn(1)

    # How it ends

    def fail(self, fault: ConnectionFault) -> None:
        """End it for what the client did."""
        if self.ended is not None:
            return
        log.info("connection ended", peer=self.peer, reason=fault.reason, why=fault.sentence)
        if fault.reason != fault.code.name.lower():
            LIMITS.labels(fault.reason).inc()
        last_stream = min(self._last_stream, self._last_served)
        self.write(frames.goaway(last_stream, fault.code, fault.sentence))
        self._leave(fault.reason)

    def go_away(self) -> None:
        """Take no new streams, and close once the last one has ended: first a warning, then, when
        the client has seen it, the last stream that is served."""
        if self.ended is not None or self._last_served != frames.MAX_STREAM:
            return
        self._last_served = frames.MAX_STREAM - 1
        self.write(frames.goaway(frames.MAX_STREAM, ErrorCode.NO_ERROR, "The server is stopping."))
        self.write(frames.frame(frames.PING, 0, 0, _FAREWELL))
        if not self._settled:
            self.close("server")

    def close_if_idle(self) -> None:
        """Close if it goes away and nothing runs on it."""
        if not self.streams and self._last_served < frames.MAX_STREAM - 1:
            self.close("server")

    def close(self, reason: str) -> None:
        """End it for a reason of ours, after what can still be written."""
        if self.ended is not None:
            return
        if self._last_served >= frames.MAX_STREAM - 1:
            # What the client sent after that stream was not served: it may try again elsewhere.
            self.write(frames.goaway(self._last_stream, ErrorCode.NO_ERROR))
        self._flush()
        self._leave(reason)

    def abort(self, reason: str) -> None:
        """End it at once."""
        self._end(reason)
        self._transport.abort()

    def _end(self, reason: str) -> None:
        if self.ended is not None:
            return
        self.ended = reason
        CONNECTIONS_ENDED.labels(reason).inc()
        self._stop_timer()
        self._forget_block()
        for stream in list(self.streams.values()):
            stream.on_lost()

    def _leave(self, reason: str) -> None:
        """Close, but let the client read why first: closing at once may throw that away."""
        self._hand_over()
        self._end(reason)
        if self._transport.is_closing():
            return
        self._timer = self.loop.call_later(_LINGER, self._transport.abort)
        if self._secure:
            self._transport.close()
            return
        with contextlib.suppress(OSError):  # the client may have left meanwhile
            self._transport.write_eof()

    # Time

    def _not_settled(self) -> None:
        if not self._settled:
            LIMITS.labels("handshake_timeout").inc()
            log.info("connection ended", peer=self.peer, reason="handshake_timeout")
            self.abort("handshake_timeout")

    def _settle(self) -> None:
        self._settled = True
        self._set_timer(self.config.keepalive.interval, self._keep_alive)

    def _keep_alive(self) -> None:
        """Ping a client that was silent for the interval."""
        keepalive = self.config.keepalive
        silent = self.loop.time() - self._last_heard
        if silent < keepalive.interval:
            self._set_timer(keepalive.interval - silent, self._keep_alive)
            return
        self.write(frames.frame(frames.PING, 0, 0, _ARE_YOU_THERE))
        self._set_timer(keepalive.timeout, self._check_alive)

    def _check_alive(self) -> None:
        keepalive = self.config.keepalive
        silent = self.loop.time() - self._last_heard
        if silent < keepalive.timeout:
            self._set_timer(max(0.0, keepalive.interval - silent), self._keep_alive)
            return
        sentence = f"The client did not answer a ping within {keepalive.timeout:g} seconds."
        self.fail(ConnectionFault(ErrorCode.NO_ERROR, sentence, "keepalive_timeout"))

    def _set_timer(self, delay: float, callback: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(delay, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # Writing

    def _flush(self) -> None:
        """Write what is to be written, streams with something to send in turn."""
        self._flushing = False
        ready = self._ready
        while ready and self.send_window > 0 and not self.paused:
            stream = next(iter(ready))
            del ready[stream]
            stream.pump()
            if stream.sendable:
                ready[stream] = None
        self._hand_over()

    def _hand_over(self) -> None:
        out = self._out
        if not out:
            return
        self._out, self._out_bytes = [], 0
        if self._transport.is_closing():
            return
        if self._secure:
            self._transport.write(b"".join(out))  # TLS would make a record of each piece
        else:
            self._transport.writelines(out)

    # Frames

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        flow = len(payload)
        self._receive_window -= flow
        if self._receive_window < 0:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, "DATA is more than the connection's window allows."
            )
        self._owed += flow
        if self._owed * 2 >= _OWN_WINDOW:
            self._receive_window += self._owed
            self.write(frames.window_update(0, self._owed))
            self._owed = 0
        if flags & frames.PADDED:
            payload = frames.unpadded(flags, payload)
        end = bool(flags & frames.END_STREAM)
        if not payload and not end:
            self._spend(flow)
        stream = self.streams.get(number)
        if stream is None:
            self._check_not_idle(number)
            if number not in self._forgiven:
                raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA came on a closed stream.")
            if end:
                del self._forgiven[number]
            return
        if payload:
            self.worked(flow)
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
        limit = 4 * self.config.http2.max_header_list_bytes
        if block.size > limit or len(block.fragments) > _MAX_FRAGMENTS:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"The headers of a call take more than {limit} bytes or {_MAX_FRAGMENTS} frames.",
                "max_header_list_bytes",
            )
        if not flags & frames.END_HEADERS:
            if self._block is None:
                self._block = block
                block.timer = self.loop.call_later(
                    self.config.handshake_timeout, self._block_is_late
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
            sentence = "The headers of a call were not finished in time."
            self.fail(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, sentence, "handshake_timeout"))

    def _on_block(self, block: "_HeaderBlock") -> None:
        number, data = block.number, b"".join(block.fragments)
        stream = self.streams.get(number)
        if stream is not None:
            self._on_trailers(stream, block, data)
            return
        if number <= self._last_stream:
            if number not in self._forgiven:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS came on a closed stream.")
            self._skip(data)
            if block.end:
                del self._forgiven[number]
            return
        self._last_stream = number
        if number > self._last_served:
            # The client will see that it was not served.
            self._skip(data)
            self._forgive(number)
            return
        request = self._headers.request(data)
        if request.size > self.config.http2.max_header_list_bytes:
            self._spend(request.size)  # it was work, and will be refused
        if block.fault is not None:
            raise block.fault
        if len(self.streams) >= self.config.max_concurrent_streams or (
            self.running >= 2 * self.config.max_concurrent_streams
        ):
            LIMITS.labels("max_concurrent_streams").inc()
            raise StreamFault(ErrorCode.REFUSED_STREAM, "There are too many streams.")
        self._open(number, request, block.end)

    def _skip(self, data: bytes) -> None:
        """Decode a block that nobody wants, since it may change the table."""
        self._spend(len(data))
        self._headers.skip(data)

    def _open(self, number: int, request: Request, half_closed: bool) -> None:
        stream = Stream(self, number, request)
        self.streams[number] = stream
        self.holdings.add(request.size)
        if stream.ended:  # there was no room for it
            return
        if half_closed:
            stream.on_half_close()
        self._host.open(stream)

    def _on_trailers(self, stream: Stream, block: "_HeaderBlock", data: bytes) -> None:
        if stream.half_closed:
            self._headers.skip(data)
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS came after the stream's end.")
        self._headers.trailers(data)
        if block.fault is not None:
            raise block.fault
        if not block.end:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "Trailers do not end their stream.")
        stream.on_half_close()

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        self._check_stream(number)
        self._spend(len(payload))
        if len(payload) != 5:
            raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, "A PRIORITY frame has not five bytes.")
        frames.check_priority(number, payload)

    def _on_rst_stream(self, flags: int, number: int, payload: bytes) -> None:
        frames.read_u32(payload)
        self._check_stream(number)
        stream = self.streams.get(number)
        if stream is None:
            self._check_not_idle(number)
            self._spend(len(payload))
            return
        if not stream.answered:
            self._spend_reset()
        stream.on_lost()

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS came on a stream.")
        self._spend(len(payload))
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(
                    ErrorCode.FRAME_SIZE_ERROR, "An acknowledgement of SETTINGS is not empty."
                )
            return
        # Of several values for one, the last holds; what each would cost on the way is spared.
        for key, value in dict(frames.read_settings(payload)).items():
            self._on_setting(key, value)
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if not self._settled:
            self._settle()

    def _on_setting(self, key: int, value: int) -> None:
        match key:
            case Setting.HEADER_TABLE_SIZE if value < _HEADER_TABLE:
                self._table_change = _NO_TABLE
            case Setting.ENABLE_PUSH if value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1.")
            case Setting.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_WINDOW:
                    raise ConnectionFault(
                        ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large."
                    )
                self._shift_windows(value - self.initial_window)
                self.initial_window = value
            case Setting.MAX_FRAME_SIZE:
                if not frames.DEFAULT_FRAME_BYTES <= value < 1 << 24:
                    raise ConnectionFault(
                        ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of its range."
                    )
                self.max_frame = min(value, _TRANSPORT_HIGH)

    def _shift_windows(self, change: int) -> None:
        self._spend(len(self.streams))  # it is work for each
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > frames.MAX_WINDOW:
                raise ConnectionFault(
                    ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE makes a window too large."
                )
            if stream.sendable:
                self._ready[stream] = None

    def _on_push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "Clients do not push.")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING came on a stream.")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "A PING has not eight bytes.")
        self._spend(len(payload))
        if flags & frames.ACK:
            if payload == _FAREWELL and self._last_served == frames.MAX_STREAM - 1:
                self._last_served = self._last_stream
                self.write(frames.goaway(self._last_stream, ErrorCode.NO_ERROR))
                self.close_if_idle()
            return
        self._check_pace()
        self.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _check_pace(self) -> None:
        """Pings that come too early are strikes, as gRPC counts them."""
        keepalive = self.config.keepalive
        if not keepalive.max_ping_strikes:
            return
        now = self.loop.time()
        early = now - self._last_ping < keepalive.min_ping_interval
        self._last_ping = now
        self._strikes = self._strikes + 1 if early else 0
        if self._strikes > keepalive.max_ping_strikes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings", "max_ping_strikes")

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY came on a stream.")
        self._spend(len(payload))

    def _on_window_update(self, flags: int, number: int, payload: bytes) -> None:
        increment = frames.read_u32(payload) & frames.MAX_WINDOW
        self._spend(len(payload))
        if number:
            stream = self.streams.get(number)
            if stream is not None:
                stream.on_window(increment)
            else:
                self._check_not_idle(number)
            return
        if not increment:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A WINDOW_UPDATE adds nothing.")
        self.send_window += increment
        if self.send_window > frames.MAX_WINDOW:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, "The connection's window is too large."
            )

    # Checks

    def _check_stream(self, number: int) -> None:
        if not number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A frame of a stream came on none.")

    def _check_not_idle(self, number: int) -> None:
        if not number % 2 or number > self._last_stream:
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, "A frame came on a stream that was never opened."
            )

    def _spend(self, size: int) -> None:
        """Count a frame that carries nothing for a handler."""
        if not self._overhead.spend(frames.HEAD_BYTES + size + _FRAME_COST):
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                "Too many frames came that carry no messages.",
                "overhead_bytes",
            )

    def _spend_reset(self) -> None:
        """Count a stream that ended in vain, whoever had to end it."""
        if not self._resets.spend(1):
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, "Too many streams were reset.", "resets"
            )

    def _fail_stream(self, number: int, fault: StreamFault) -> None:
        log.debug("stream ended", peer=self.peer, stream=number, why=str(fault))
        self._spend_reset()
        stream = self.streams.get(number)
        if stream is not None:
            stream.fail(fault.code)
        else:
            self.write(frames.reset(number, fault.code))
            self._forgive(number)

    def _forgive(self, number: int) -> None:
        self._forgiven[number] = None
        if len(self._forgiven) > 2 * self.config.max_concurrent_streams + 100:
            del self._forgiven[next(iter(self._forgiven))]

    def _after_preface(self, data: bytes) -> bytes:
        """What follows the preface, which is not necessarily there at once."""
        expected = self._preface
        if data[: len(expected)] == expected[: len(data)]:
            self._preface = expected[len(data) :]
            return data[len(expected) :]
        if not self._secure and data[:2] == b"\x16\x03":
            why = "The client speaks TLS, and this port is plaintext; switch one of them."
        elif data[:5] in (b"GET /", b"POST ", b"HEAD ", b"PUT /"):
            why = "The client speaks HTTP/1.1, and this port is gRPC's; use a gRPC client."
            body = why.encode() + b"\n"
            self.write(
                b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\n"
                b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            log.info("connection ended", peer=self.peer, reason="not_http2", why=why)
            self._leave("not_http2")
            return b""
        else:
            why = "What the client sent first is not HTTP/2."
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, why, "not_http2")


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


_FAULT = ConnectionFault(
    ErrorCode.INTERNAL_ERROR, "An internal error ended the connection; the server's log has it."
)
_ARE_YOU_THERE = b"selvedge"
_FAREWELL = b"farewell"
