"""What a client has sent on one stream and its handler has not taken yet."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import grpc

from selvedge_common.comm.errors import StatusError
from selvedge_common.comm.native.messages import MessageReader
from selvedge_common.comm.native.wakeup import Wakeup
from selvedge_common.comm.settings import MESSAGE_COST

if TYPE_CHECKING:
    from selvedge_common.comm.native.stream import Stream

_TAKEN_A_TURN = 64  # messages that one handler takes before others have their turn


class Inbox:
    """The messages of one stream, from the bytes of its frames to the handler.

    Args:
        stream: whose they are; it is told to refuse what cannot be taken.
        reader: puts them together.
    """

    __slots__ = (
        "_callback",
        "_closed",
        "_news",
        "_queue",
        "_queued",
        "_reader",
        "_stream",
        "_taken",
        "held",
    )

    def __init__(self, stream: "Stream", reader: MessageReader) -> None:
        self._stream = stream
        self._reader = reader
        self._queue: deque[bytes] = deque()
        self._queued = 0  # what the messages in it take
        self._callback: Callable[[bytes], None] | None = None
        self._news = Wakeup()
        self._closed = False
        self._taken = 0
        self.held = 0

    @property
    def dropped(self) -> bool:
        """Whether nothing is taken any more."""
        return self._reader is _NOTHING

    @property
    def behind(self) -> bool:
        """Whether whole messages wait to be taken: then the client gets no more credit."""
        return bool(self._queue)

    def feed(self, data: bytes) -> None:
        """Take in the payload of a DATA frame."""
        reader = self._reader
        for message in reader.feed(data):
            if self._callback is not None:
                self._hand_over(message)
            elif self._reader is reader:  # else the message before it ended the stream
                self._queue.append(message)
                self._queued += len(message) + MESSAGE_COST
        if self._queue:
            self._news.wake()
        if self.held or self._queued or self._reader.held_bytes:
            self._hold()
        refusal = self._reader.refusal
        if refusal is not None:
            too_large = refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            self._stream.refuse(refusal, "max_receive_bytes" if too_large else "")

    def close(self) -> None:
        """No more will come: the client has half-closed."""
        self._closed = True
        if self._reader.held_bytes:
            self._stream.refuse(
                StatusError(
                    grpc.StatusCode.INTERNAL,
                    f"The stream ended {self._reader.held_bytes} bytes into a message; send the "
                    "length that is announced.",
                )
            )
        self._news.wake()

    def drop(self) -> None:
        """Forget what waits; the stream is over."""
        self._queue.clear()
        self._queued = 0
        self._reader = _NOTHING
        self._callback = None
        self._hold()

    async def read(self) -> bytes | None:
        """The next message; None after the last."""
        while not self._queue:
            if self._closed:
                return None
            await self._news.wait()
        message = self._take()
        if not self._taken % _TAKEN_A_TURN:
            await asyncio.sleep(0)  # so many may wait that others would
        return message

    async def receive(self, on_message: Callable[[bytes], None]) -> None:
        """Call `on_message` for each message in the turn of the loop in which it arrives."""
        while self._queue:
            on_message(self._take())
            if not self._taken % _TAKEN_A_TURN:
                await asyncio.sleep(0)
        if self._closed:
            return
        self._callback = on_message
        try:
            while not self._closed:
                await self._news.wait()
        finally:
            self._callback = None

    def _take(self) -> bytes:
        message = self._queue.popleft()
        self._taken += 1
        self._queued -= len(message) + MESSAGE_COST
        self._hold()
        if not self._queue:
            self._stream.give_credit()
        return message

    def _hand_over(self, message: bytes) -> None:
        assert self._callback is not None
        try:
            self._callback(message)
        except Exception as error:
            # It is `receive` that raises it, in the handler's task.
            self._callback = None
            self._news.fail(error)

    def _hold(self) -> None:
        """Account for what is held now, in the stream, its connection and the process."""
        held = self._reader.held_bytes + self._queued
        grown, self.held = held - self.held, held
        if grown:
            self._stream.connection.received.add(grown)


class _Dropped(MessageReader):
    """Takes nothing in. All streams that are over share one, so it must keep nothing either."""

    __slots__ = ()

    def feed(self, data: bytes) -> Sequence[bytes]:
        return ()


_NOTHING = _Dropped(0, "identity")
