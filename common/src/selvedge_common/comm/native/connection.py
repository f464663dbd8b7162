"""One client's connection (RFC 9113): what leaves on it, its bounds, and its end."""

import array
import asyncio
import contextlib
import fcntl
import termios
import time
from collections.abc import Callable, Mapping
from typing import Protocol, cast

import grpc

from selvedge_common import logs
from selvedge_common.comm.errors import StatusError
from selvedge_common.comm.metrics import CONNECTIONS_ENDED, LIMITS, RECEIVING
from selvedge_common.comm.native import frames
from selvedge_common.comm.native.allowance import Allowance
from selvedge_common.comm.native.frames import ConnectionFault, ErrorCode, Setting
from selvedge_common.comm.native.headers import Request
from selvedge_common.comm.native.holdings import Holdings, Pool
from selvedge_common.comm.native.incoming import OWN_WINDOW, Incoming
from selvedge_common.comm.native.stream import Stream
from selvedge_common.comm.native.tally import Tally
from selvedge_common.comm.native.tls import PeerIdentity
from selvedge_common.comm.settings import ServerConfig

log = logs.get_logger("comm")

_WRITE_AT = 256 * 1024
_TRANSPORT_HIGH, _TRANSPORT_LOW = 128 * 1024, 32 * 1024
_FRAME_COST = 32  # what a frame counts beside its bytes when it carries nothing
STREAM_COST = 8 * 1024  # what a call takes beside its headers and messages, about
_TURN = 0.01  # seconds of work for one client before others have their turn
_LAST_CHANCE = 0.1  # seconds
_LINGER = 1.0  # seconds that a client may take to leave once it has read why its connection ends
# Where it has yet to read that: seconds in which it has to take some, and in which all. One that
# reads steadily takes nothing now and then, since systems open their windows in steps.
_STALLED_LINGER, _LONGEST_LINGER = 4.0, 10.0
_NO_TABLE = b"\x20"  # how a block says that none are used (RFC 7541, section 6.3)


class Host(Protocol):
    """The server, as a connection needs it."""

    def open(self, stream: Stream) -> None:
        """Serve a new stream."""

    def arrived(self, connection: "Connection") -> None:
        """The connection is made."""

    def settled(self, connection: "Connection") -> None:
        """The client has begun to speak."""

    def left(self, connection: "Connection") -> None:
        """The connection is gone."""


class Connection(asyncio.Protocol):
    """Speaks HTTP/2 with one client.

    Args:
        host: serves its streams.
        config: the bounds.
        secure: whether it is carried by TLS.

    Attributes:
        streams: those that are open, by their ids.
        running: how many handlers run, those of streams that are over included.
        identity: who the client is.
        since: when it was made, by the loop's clock.
        initial_window, send_window: what the client takes, on a new stream and altogether.
        max_frame: the largest payload that it takes.
        paused: the system takes no more for now.
        ended: why it is over, once it is.
        last_served: the newest stream that is served, once the connection goes away.
        refusal: why none of its calls is served, if that is so.
    """

    def __init__(self, host: Host, config: ServerConfig, *, secure: bool) -> None:
        self.config = config
        self.secure = secure
        self.loop = asyncio.get_running_loop()
        self.streams: dict[int, Stream] = {}
        self.running = 0
        self.identity = PeerIdentity()
        self.since = self.loop.time()
        self.tally = Tally()
        self.initial_window = frames.DEFAULT_WINDOW
        self.send_window = frames.DEFAULT_WINDOW
        self.max_frame = frames.DEFAULT_FRAME_BYTES
        self.paused = False
        self.ended: str | None = None
        self.last_served = frames.MAX_STREAM
        self.refusal: StatusError | None = None
        streams = self.streams.values
        self.received = Holdings(
            RECEIVED,
            config.http2.max_receiving_in_process,
            streams,
            lambda stream: stream.inbox.held + stream.request.size + STREAM_COST,
            self._relieve_of_received,
        )
        self.pending = Holdings(
            PENDING,
            config.http2.max_pending_in_process,
            streams,
            lambda stream: stream.outbox.bytes,
            self._relieve_of_pending,
        )
        self._host = host
        self._transport: asyncio.Transport
        self._incoming = Incoming(self)
        self._ready: dict[Stream, None] = {}
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._in_turn = False
        self._resting = False  # it has had its turn, and has more to do
        self._flushing = False
        self._unread = 0  # bytes beside messages that wait for the client to read
        self._table_change = b""  # what the next header block has to begin with
        self._overhead = Allowance(config.http2.overhead_bytes, config.http2.overhead_bytes / 60)
        self._resets = Allowance(config.http2.resets, config.http2.resets / 10)
        self._last_heard = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have the server know of it, and wait for the client to speak."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        transport = self._transport
        self.identity = PeerIdentity.of(transport)
        self._timer = self.loop.call_later(self.config.handshake_timeout, self._not_settled)
        self._host.arrived(self)
        if self.secure and not self.identity.speaks_http2:
            self.turn_away(
                "alpn", "The client did not ask for h2 by ALPN; gRPC over TLS needs that."
            )
        if self.ended is None:
            transport.set_write_buffer_limits(high=_TRANSPORT_HIGH, low=_TRANSPORT_LOW)

    def greet(self) -> None:
        """Answer a client that has begun to speak HTTP/2. Whoever speaks something else is told so
        in words of its own, which nothing may come before."""
        http2 = self.config.http2
        self.write(
            frames.settings(
                {
                    Setting.MAX_CONCURRENT_STREAMS: self.config.max_concurrent_streams,
                    Setting.INITIAL_WINDOW_SIZE: http2.receive_window,
                    Setting.MAX_HEADER_LIST_SIZE: http2.max_header_list_bytes,
                }
            )
            + frames.window_update(0, OWN_WINDOW - frames.DEFAULT_WINDOW)
        )

    def data_received(self, data: bytes) -> None:
        """Act on what is complete, and write all answers at once."""
        if self.ended is not None:
            return  # it may go on to send while it reads why this is over
        self._last_heard = self.loop.time()
        self._incoming.add(data)
        if not self._resting:
            self._work()

    def _work(self) -> None:
        self._resting = False
        if self.ended is not None:
            return
        self._in_turn = True
        try:
            if not self._incoming.work(time.perf_counter() + _TURN):
                # There is more, and others wait: nothing new is read until that is done.
                self._resting = True
                self._transport.pause_reading()
                self.loop.call_soon(self._go_on)
        except ConnectionFault as fault:
            self.fail(fault)
        except Exception:
            log.exception("fault of a connection", peer=self.peer)
            self.fail(_FAULT)
        finally:
            self._in_turn = False
            self._flush()

    def _go_on(self) -> None:
        self._work()
        if not self._resting and not self._transport.is_closing():
            self._transport.resume_reading()

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
    def settled(self) -> bool:
        """Whether the client has said what it has to say first."""
        return self._incoming.settled

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
        else:
            self._flush_soon()

    def _add_unread(self, size: int) -> None:
        """Count an answer that waits while messages do not leave at all, such as a status: a client
        that reads none cannot ask for ever."""
        self._unread += size
        limit = self.config.http2.max_unread_bytes
        if self._unread > limit:
            self._unread = -frames.MAX_WINDOW  # what follows is the last, and not counted
            sentence = f"More than {limit} bytes of answers were not read."
            self.fail(
                ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, sentence, limit="max_unread_bytes")
            )

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

    def use_no_table(self) -> None:
        """Say in the next header block that HPACK's table is not used: the client allows less of it
        than is usual."""
        self._table_change = _NO_TABLE

    def want(self, stream: Stream) -> None:
        """Give a stream its turn once there is room."""
        self._ready[stream] = None
        if self.send_window > 0 and not self.paused:
            self._flush_soon()

    def enqueued(self, size: int) -> None:
        """Count what waits in a stream. Above a bound, the stream with the most is ended."""
        self.pending.add(size)
        limit = self.config.http2.max_pending
        if size > 0 and self.pending.bytes > limit:
            most = max(self.streams.values(), key=lambda stream: stream.outbox.bytes)
            self._end_for(
                most,
                "max_pending_of_connection",
                f"{self.pending.bytes} bytes wait for one connection, above the limit of {limit} "
                f"bytes, and most of them, {most.outbox.bytes}, on this stream; read faster.",
            )

    def _relieve_of_received(self, stream: Stream) -> None:
        self._end_for(
            stream,
            "max_receiving_in_process",
            f"{RECEIVED.bytes} bytes of calls and of messages that are not whole or not taken yet "
            "are held for all clients of this process, above the limit of "
            f"{self.config.http2.max_receiving_in_process} bytes, and most of them, "
            f"{self.received.bytes}, for this one; send less at a time.",
        )

    def _relieve_of_pending(self, stream: Stream) -> None:
        self._end_for(
            stream,
            "max_pending_in_process",
            f"{PENDING.bytes} bytes wait for all clients of this process, above the limit of "
            f"{self.config.http2.max_pending_in_process} bytes, and most of them, "
            f"{self.pending.bytes}, for this one; read faster.",
        )

    def _end_for(self, stream: Stream, limit: str, sentence: str) -> None:
        """End a stream that holds too much; at once, if it was told already."""
        if stream.inbox.dropped:
            stream.fail(ErrorCode.ENHANCE_YOUR_CALM)
        else:
            stream.refuse(StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, sentence), limit)

    def open(self, number: int, request: Request, *, half_closed: bool) -> None:
        """Serve a new stream."""
        stream = Stream(self, number, request)
        self.streams[number] = stream
        self.received.add(request.size + STREAM_COST)
        if stream.ended:  # there was no room for it
            return
        if half_closed:
            stream.on_half_close()
        self._host.open(stream)

    def affords(self, size: int) -> bool:
        """Count bytes that carry nothing for a handler, and tell whether they were not too many."""
        return self._overhead.spend(frames.HEAD_BYTES + size + _FRAME_COST)

    def spend(self, size: int) -> None:
        """Count a frame that carries nothing for a handler. Raises ConnectionFault for too many."""
        if not self.affords(size):
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                "Too many frames came that carry no messages.",
                limit="overhead_bytes",
            )

    def spend_reset(self) -> None:
        """Count a stream that ended in vain, whoever had to end it. Raises ConnectionFault for too
        many."""
        if not self._resets.spend(1):
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, "Too many streams were reset.", limit="resets"
            )

    def worked(self, size: int, extra: int = 4 * _FRAME_COST) -> None:
        """Something useful went to the client, or came from it: that earns it some overhead, and
        pings."""
        self._incoming.pace.strikes = 0
        self._overhead.earn(size + extra)

    def forget(self, stream: Stream) -> None:
        """A stream is over."""
        if self.streams.pop(stream.number, None) is not None:
            self.received.add(-stream.request.size - STREAM_COST)
        self._ready.pop(stream, None)
        if not stream.half_closed:
            self._incoming.forgive(stream.number)
        if not self.streams and self.last_served != frames.MAX_STREAM:
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
        if fault.limit:
            LIMITS.labels(fault.limit).inc()
        last_stream = min(self._incoming.last_stream, self.last_served)
        self.write(frames.goaway(last_stream, fault.code, fault.sentence))
        self._leave(fault.reason)

    def turn_away(self, reason: str, why: str, answer: bytes = b"") -> None:
        """End it before it has begun, with an answer that is no HTTP/2."""
        log.info("connection ended", peer=self.peer, reason=reason, why=why)
        self.write(answer)
        self._leave(reason)

    def go_away(self) -> None:
        """Take no new streams, and close once the last one has ended: first a warning, then, when
        the client has seen it, the last stream that is served."""
        if self.ended is not None or self.last_served != frames.MAX_STREAM:
            return
        self.last_served = frames.MAX_STREAM - 1
        self.write(frames.goaway(frames.MAX_STREAM, ErrorCode.NO_ERROR, "The server is stopping."))
        self.write(frames.frame(frames.PING, 0, 0, _FAREWELL))
        if not self._incoming.settled:
            self.close("server")

    def on_acknowledged(self, ping: bytes) -> None:
        """The client has answered a ping: after the farewell it has seen that we go away, and what
        it opened until then is the last."""
        if ping == _FAREWELL and self.last_served == frames.MAX_STREAM - 1:
            self.last_served = self._incoming.last_stream
            self.write(frames.goaway(self.last_served, ErrorCode.NO_ERROR))
            self.close_if_idle()

    def close_if_idle(self) -> None:
        """Close if it goes away and nothing runs on it."""
        if not self.streams and self.last_served < frames.MAX_STREAM - 1:
            self.close("server")

    def close(self, reason: str) -> None:
        """End it for a reason of ours, after what can still be written."""
        if self.ended is not None:
            return
        if self.last_served >= frames.MAX_STREAM - 1:
            # What the client sent after that stream was not served: it may try again elsewhere.
            self.write(frames.goaway(self._incoming.last_stream, ErrorCode.NO_ERROR))
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
        self._incoming.stop()
        for stream in list(self.streams.values()):
            stream.on_lost()

    def _leave(self, reason: str) -> None:
        """Close, but let the client read why first: closing at once may throw that away."""
        self._hand_over()
        self._end(reason)
        if self._transport.is_closing():
            return
        now = self.loop.time()
        self._timer = self.loop.call_later(_LINGER, self._linger, now, now, self._unconfirmed())
        if self.secure:
            self._transport.close()
            return
        with contextlib.suppress(OSError):  # the client may have left meanwhile
            self._transport.write_eof()

    def _linger(self, since: float, moved: float, before: int) -> None:
        """Close, unless the client still takes what was written.

        Args:
            since: when it was to be closed.
            moved: when the client was seen to take something.
            before: how many bytes it had yet to take then.
        """
        now, left = self.loop.time(), self._unconfirmed()
        if left < before:
            moved = now
        if left and now - moved < _STALLED_LINGER and now - since < _LONGEST_LINGER:
            self._timer = self.loop.call_later(_LINGER, self._linger, since, moved, left)
        else:
            self._transport.abort()

    def _unconfirmed(self) -> int:
        """How many bytes were written that the client's machine has not confirmed."""
        in_system = array.array("i", [0])
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # not every system tells
            fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, in_system)
        return self._transport.get_write_buffer_size() + in_system[0]

    # Time

    def _not_settled(self) -> None:
        if not self._incoming.settled:
            LIMITS.labels("handshake_timeout").inc()
            why = (
                f"The client did not begin to speak HTTP/2 in {self.config.handshake_timeout:g} s."
            )
            log.info("connection ended", peer=self.peer, reason="handshake_timeout", why=why)
            self.abort("handshake_timeout")

    def keep_alive(self) -> None:
        """Begin to look after a client whose SETTINGS have come."""
        self._set_timer(self.config.keepalive.interval, self._ping_if_silent)
        self._host.settled(self)

    def _ping_if_silent(self) -> None:
        """Ping a client that was silent for the interval."""
        keepalive = self.config.keepalive
        silent = self.loop.time() - self._last_heard
        if silent < keepalive.interval:
            self._set_timer(keepalive.interval - silent, self._ping_if_silent)
            return
        self.write(frames.frame(frames.PING, 0, 0, _ARE_YOU_THERE))
        # Not compared with the time of the ping: the answer may well come in the same tick.
        self._last_heard = _NEVER
        self._set_timer(keepalive.timeout, self._check_alive)

    def _check_alive(self) -> None:
        keepalive = self.config.keepalive
        if self._last_heard != _NEVER:
            silent = self.loop.time() - self._last_heard
            self._set_timer(max(0.0, keepalive.interval - silent), self._ping_if_silent)
            return
        # It may be the loop that was late: what has come meanwhile is read before this.
        self._set_timer(_LAST_CHANCE, self._give_up)

    def _give_up(self) -> None:
        if self._last_heard != _NEVER:
            self._check_alive()
            return
        why = f"The client did not answer a ping within {self.config.keepalive.timeout:g} seconds."
        self.fail(ConnectionFault(ErrorCode.NO_ERROR, why, reason="keepalive_timeout"))

    def _set_timer(self, delay: float, callback: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(delay, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # Writing

    def _flush_soon(self) -> None:
        """Flush by the end of this turn, which does so by itself where a client's frames are acted
        on."""
        if not self._in_turn and not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

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
        if self.secure:
            self._transport.write(b"".join(out))  # TLS would make a record of each piece
        else:
            self._transport.writelines(out)


_FAULT = ConnectionFault(
    ErrorCode.INTERNAL_ERROR, "An internal error ended the connection; the server's log has it."
)
RECEIVED, PENDING = Pool(), Pool()
RECEIVING.set_function(lambda: RECEIVED.bytes)
_NEVER = float("-inf")
_ARE_YOU_THERE = b"selvedge"
_FAREWELL = b"farewell"
