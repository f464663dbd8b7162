"""What waits to be sent in message streams: bounded in each, and in all of the process together."""

import operator
from abc import ABC, abstractmethod

import grpc

from selvedge_common.comm.metrics import PENDING, Method
from selvedge_common.comm.settings import MESSAGE_COST, ServerConfig


class BoundedStream(ABC):
    """The bounds of a message stream, the same whatever carries it; base of those that do."""

    def __init__(self, config: ServerConfig, method: Method) -> None:
        self._config = config.stream
        self._max_send_bytes = config.max_send_bytes
        self._send_setting = config.send_setting
        self._method = method

    @property
    @abstractmethod
    def pending_bytes(self) -> int:
        """As in MessageStream; so are the following."""

    @property
    def max_message_bytes(self) -> int:
        return self._max_send_bytes

    @abstractmethod
    def close(self, code: grpc.StatusCode, details: str) -> None: ...

    @abstractmethod
    def abort(self, code: grpc.StatusCode, details: str) -> None: ...

    def _refuse_too_large(self, size: int) -> None:
        """End the stream, once what waits has gone, for a message above the limit."""
        self._method.overflow("max_send_bytes")
        self.close(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"A message of {size} bytes is above this listener's limit of "
            f"{self._max_send_bytes} bytes for sending; raise {self._send_setting}.",
        )

    def _check_waiting(self, pending: int, messages: int) -> None:
        """End this stream if so much is too much for it, or the one with the most waiting if it is
        for the process."""
        waiting = pending + MESSAGE_COST * messages
        if waiting > self._config.max_pending:
            self._overflow(
                "max_pending",
                f"{waiting} bytes are waiting for a client that does not read them, "
                f"above the limit of {self._config.max_pending} bytes; read faster.",
            )
        else:
            PROCESS.check(self._config.max_pending_in_process)

    def relieve(self, sentence: str) -> None:
        """End this stream, since too much waits in the process and most of it here."""
        self._overflow("max_pending_in_process", sentence)

    def _flush_expired(self, pending: int) -> None:
        self._overflow(
            "flush_timeout",
            f"The stream was ending but {pending} bytes were not read within "
            f"{self._config.flush_timeout:g} seconds; read faster.",
        )

    def _overflow(self, bound: str, sentence: str) -> None:
        self._method.overflow(bound)
        self.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, sentence)


class Process:
    """All message streams that are open, and the bytes that wait in them."""

    def __init__(self) -> None:
        self.pending = 0
        self.streams: set[BoundedStream] = set()

    def check(self, limit: int) -> None:
        """End the stream with the most waiting if more than `limit` bytes wait altogether."""
        if self.pending <= limit:
            return
        most = max(self.streams, key=_pending_of)
        most.relieve(
            f"{self.pending} bytes are waiting for all clients of this process, above the"
            f" limit of {limit} bytes, and most of them, {most.pending_bytes}, for this one;"
            " read faster.",
        )


PROCESS = Process()
_pending_of = operator.attrgetter("pending_bytes")
PENDING.set_function(lambda: PROCESS.pending)
