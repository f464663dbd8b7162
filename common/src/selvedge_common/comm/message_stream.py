"""The message-stream face: what the two hot streams are written on, whatever carries it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import grpc


class MessageStream(Protocol):
    """One bidirectional stream of serialised messages, seen from the server.

    All methods belong to the event loop's thread. A client that cancels or goes away makes the
    handler's task be cancelled; nothing else is raised for it.
    """

    @property
    def peer(self) -> str:
        """The client's address, in gRPC's form."""

    @property
    def pending_bytes(self) -> int:
        """Bytes sent by the handler and not yet taken by the transport."""

    @property
    def max_message_bytes(self) -> int:
        """The largest message that `send` takes: whoever would rather leave one out than end the
        stream compares first."""

    @property
    def full(self) -> bool:
        """Whether more than the high mark is pending."""

    @property
    def status(self) -> tuple[grpc.StatusCode, str] | None:
        """The status that this side ends it with, once that is decided; None before that, and where
        the client went first."""

    @property
    def closed(self) -> bool:
        """Whether the stream has ended: its handler is done and its status is decided."""

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """What TLS knows of the client, such as `x509_pem_cert`."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """The client's metadata."""

    def time_remaining(self) -> float | None:
        """Seconds to the client's deadline; None without one."""

    def send(self, message: bytes) -> None:
        """Queue a message; never blocks, and does nothing once the stream is ending.

        A message above `max_message_bytes` closes the stream with RESOURCE_EXHAUSTED once all
        that is queued has gone; one that makes more than `max_pending` bytes wait ends it at once,
        and one that makes too many wait in the whole process ends the stream with the most.
        """

    async def drained(self) -> None:
        """Wait until at most the low mark is pending, or the stream has ended."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The client's messages until it half-closes.

        One reader at a time, and none after a read was cancelled: it may have lost a message.
        """

    async def receive(self, on_message: Callable[[bytes], None]) -> None:
        """Call `on_message` for each of the client's messages until it half-closes."""

    def close(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "") -> None:
        """End the stream with this status once all that is queued has gone.

        The handler is cancelled then, if it has not returned. The first close or abort decides
        the status; only an abort may follow a close.
        """

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        """End the stream with this status now: what is queued is dropped, the handler
        cancelled."""

    async def wait_closed(self) -> None:
        """Wait until `closed`."""


MessageStreamHandler = Callable[[MessageStream], Awaitable[None]]
