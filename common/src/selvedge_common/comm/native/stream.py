"""One HTTP/2 stream (RFC 9113, section 5): its states, its flow control, and what waits in it."""

import asyncio
from typing import TYPE_CHECKING, Protocol

from selvedge_common.comm.errors import StatusError
from selvedge_common.comm.native import frames
from selvedge_common.comm.native.frames import ConnectionFault, ErrorCode, StreamFault
from selvedge_common.comm.native.headers import Request, plain_response
from selvedge_common.comm.native.inbox import Inbox
from selvedge_common.comm.native.messages import PREFIX_BYTES, MessageReader, message_head, prefix
from selvedge_common.comm.native.outbox import Outbox

if TYPE_CHECKING:
    from selvedge_common.comm.native.connection import Connection

# What a connection may take from one stream before it is another's turn.
_TURN_BYTES = 64 * 1024
# Seconds that a client may take to read the rest of a message that is the last it gets.
_CUT_PATIENCE = 10.0
_REFUSAL_DELAY = 0.05  # seconds that a refusal waits for the client's first message


class Receiver(Protocol):
    """Who a stream is for."""

    def lost(self) -> None:
        """The client cancelled the stream, or its connection is gone: nothing can be sent."""

    def refuse(self, refusal: StatusError, limit: str) -> None:
        """What the client sent is not taken, because of `limit` if that is not empty."""

    def progressed(self) -> None:
        """Some of what waited left."""

    def sent_all(self) -> None:
        """Everything left, the status included."""


class Stream:
    """One stream of a connection, from its request until both sides have ended it.

    How it ends, and what becomes of what waits to be sent:

    | by | called when | the client sees | what waits |
    |---|---|---|---|
    | `finish` | the handler is done | trailers | goes first |
    | `cut` | a bound or a deadline is passed, the server stops | trailers | all but a begun message
    is dropped |
    | `fail` | the client broke the protocol | RST_STREAM | is dropped |
    | `on_lost` | the client cancelled or has gone | nothing | is dropped |

    `refuse` lets the receiver cut it. All come to `_close` in the end.

    Args:
        connection: what carries it.
        number: its id.
        request: what opened it.
    """

    __slots__ = (
        "_delayed",
        "_ending",
        "_expected",
        "_heard",
        "_owed",
        "_patience",
        "_plain_answer",
        "_receive_window",
        "answered",
        "connection",
        "ended",
        "half_closed",
        "headers_sent",
        "inbox",
        "number",
        "outbox",
        "receiver",
        "request",
        "send_window",
        "since",
    )

    def __init__(self, connection: "Connection", number: int, request: Request) -> None:
        self.connection = connection
        self.number = number
        self.request = request
        self.since = connection.loop.time()
        self.receiver: Receiver | None = None
        self.inbox = Inbox(
            self,
            MessageReader(
                connection.config.max_receive_bytes,
                request.encoding,
                connection.config.receive_setting,
            ),
        )
        self.half_closed = False  # by the client
        self.ended = False  # by us, or by the client's cancelling: nothing is sent any more
        self.headers_sent = False
        self.answered = False  # a message was sent: the call was not in vain
        self.outbox = Outbox()
        self.send_window = connection.initial_window
        # The client may have yet to read that it is smaller than the default.
        self._receive_window = max(connection.config.http2.receive_window, frames.DEFAULT_WINDOW)
        self._owed = 0  # credit that the client has yet to be given back
        self._expected = request.content_length
        self._ending: bytes | None = None  # the trailers that end it; empty for none
        self._patience: asyncio.TimerHandle | None = None  # with who reads a last message
        self._heard = False  # anything beside the request's headers
        self._delayed: asyncio.TimerHandle | None = None
        self._plain_answer: tuple[int, str] | None = None

    # What the client does

    def on_data(self, payload: bytes, flow: int, end: bool) -> None:
        """Take a DATA frame that counts `flow` bytes, its padding included.

        Raises:
            ConnectionFault: it is more than the client was allowed.
            StreamFault: the client has half-closed, or announced another length.
        """
        if self.half_closed:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA came after the stream's end.")
        self._receive_window -= flow
        if self._receive_window < 0:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, "DATA is more than the stream's window allows."
            )
        if self._expected is not None:
            self._expected -= len(payload)
            if self._expected < 0 or (end and self._expected):
                raise StreamFault(
                    ErrorCode.PROTOCOL_ERROR, "DATA is not as long as content-length says."
                )
        self._owed += flow
        self._heard = True
        if self._delayed is not None:
            self._end_delayed()
        if payload and self.receiver is not None and not self.ended:
            self.inbox.feed(payload)
        if end:
            self.on_half_close()
        elif self._owed:
            self.give_credit()

    def on_half_close(self) -> None:
        """The client sends no more. Raises StreamFault if it announced more."""
        if self._expected:
            raise StreamFault(
                ErrorCode.PROTOCOL_ERROR, "The stream ended before what content-length says."
            )
        self.half_closed = True
        self.inbox.close()
        if self._delayed is not None:
            self._end_delayed()
        if self._plain_answer is not None:
            self._answer_plainly(*self._plain_answer)

    def on_window(self, increment: int) -> None:
        """The client takes more. Raises StreamFault when that is more than there can be."""
        if not increment:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "A WINDOW_UPDATE adds nothing.")
        self.send_window += increment
        if self.send_window > frames.MAX_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "A stream's window is too large.")
        if self.outbox.bytes:
            self.connection.want(self)

    def on_lost(self) -> None:
        """The client cancelled the stream, or its connection is gone."""
        self.half_closed = True
        self._close()
        if self.receiver is not None:
            self.receiver.lost()

    def give_credit(self) -> None:
        """Let the client send as much as was taken, unless its messages wait for the handler."""
        owed = self._owed
        if (
            owed * 2 < self.connection.config.http2.receive_window
            or self.inbox.behind
            or self.half_closed
            or self.ended
        ):
            return
        self._owed = 0
        self._receive_window += owed
        self.connection.write(frames.window_update(self.number, owed))

    def refuse(self, refusal: StatusError, limit: str = "") -> None:
        """Take nothing more from the client, and tell it why."""
        self.inbox.drop()
        if self.receiver is not None:
            self.receiver.refuse(refusal, limit)
        else:
            self.fail(ErrorCode.ENHANCE_YOUR_CALM)

    # What is sent to it

    def send_headers(self, block: bytes) -> None:
        """Begin the response."""
        self.headers_sent = True
        if not self.ended:
            self.connection.write_headers(self.number, block, end=False)

    def send_message(self, message: bytes, compressed: bool = False) -> None:
        """Send a message as soon as the client takes it."""
        if self.ended:
            return
        self.answered = True
        connection, size = self.connection, len(message) + PREFIX_BYTES
        if (
            not self.outbox.bytes
            and size <= self.send_window
            and size <= connection.send_window
            and size <= connection.max_frame
            and not connection.paused
        ):
            self.send_window -= size
            connection.send_window -= size
            connection.write(message_head(self.number, len(message), compressed), message)
            connection.worked(size)
            return
        self._wait(prefix(len(message), compressed), message)

    def answer_plainly(self, status: int, text: str) -> None:
        """Answer somebody who does not speak gRPC, once it has said all it has to say."""
        if self.half_closed:
            self._answer_plainly(status, text)
        else:
            self._plain_answer = status, text

    def _answer_plainly(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_headers(plain_response(status, body))
        self._ending = b""
        self._wait(body)

    def finish(self, trailers: bytes, *, refusing: bool = False) -> None:
        """End the stream once everything has gone that waits.

        Args:
            trailers: their header block.
            refusing: the client may be about to send its first message. grpc.aio makes INTERNAL of
                a write that finds the stream ended, whatever the status says; so that message is
                waited for, shortly.
        """
        if self.ended or self._ending is not None:
            return
        self._ending = trailers
        if refusing and not self._heard and not self.half_closed:
            self._delayed = self.connection.loop.call_later(_REFUSAL_DELAY, self._end_delayed)
        elif not self.outbox.bytes:
            self._end()

    def _end_delayed(self) -> None:
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None
        if self._ending is not None and not self.outbox.bytes:
            self._end()

    def cut(self, trailers: bytes) -> None:
        """End the stream without what waits, but for the rest of a message that has begun."""
        if self.ended:
            return
        self._ending = trailers
        self.connection.enqueued(-self.outbox.cut())
        if not self.outbox.bytes:
            self._end()
        elif self._patience is None:
            self._patience = self.connection.loop.call_later(
                _CUT_PATIENCE, self.fail, ErrorCode.CANCEL
            )

    def fail(self, code: ErrorCode) -> None:
        """End the stream with RST_STREAM, and the work on it."""
        if not self.ended:
            self.connection.write(frames.reset(self.number, code))
            self._close()
        if self.receiver is not None:
            self.receiver.lost()

    def pump(self) -> None:
        """Send of what waits, as much as both windows and the connection's turn allow."""
        connection, outbox, turn = self.connection, self.outbox, _TURN_BYTES
        waited = outbox.bytes
        while outbox.bytes and turn > 0 and not connection.paused:
            size = min(outbox.bytes, self.send_window, connection.send_window, connection.max_frame)
            if size <= 0:
                break
            turn -= size
            self.send_window -= size
            connection.send_window -= size
            connection.enqueued(-size)
            head = frames.head(size, frames.DATA, 0, self.number)
            connection.write(head, *outbox.take(size))
            # The bytes alone: a client that opens its window by a byte at a time earns nothing.
            connection.worked(size, 0)
        if outbox.bytes < waited and self.receiver is not None:
            self.receiver.progressed()
        if not outbox.bytes and self._ending is not None and self._delayed is None:
            self._end()

    @property
    def sendable(self) -> bool:
        """Whether something waits that the stream's own window lets go."""
        return self.outbox.bytes > 0 and self.send_window > 0

    def _wait(self, *pieces: bytes) -> None:
        self.connection.enqueued(self.outbox.add(*pieces))
        if self.outbox.bytes:  # else it was too much, and the stream is over
            self.connection.want(self)

    def _end(self) -> None:
        """Say how it ended; all that waited is gone."""
        trailers, self._ending = self._ending, None
        if trailers:
            self.connection.write_headers(self.number, trailers, end=True)
        else:
            self.connection.write(frames.frame(frames.DATA, frames.END_STREAM, self.number))
        if not self.half_closed:
            # The client need not send what nobody will read.
            self.connection.write(frames.reset(self.number, ErrorCode.NO_ERROR))
        self._close()
        if self.receiver is not None:
            self.receiver.sent_all()

    def _close(self) -> None:
        self.ended = True
        for timer in (self._delayed, self._patience):
            if timer is not None:
                timer.cancel()
        self._ending = None
        self.connection.enqueued(-self.outbox.clear())
        self.inbox.drop()
        self.connection.forget(self)
