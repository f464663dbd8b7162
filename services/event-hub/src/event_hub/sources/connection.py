"""One Deliver stream to one address of a source: requests are written, answers read.

The live blocks and the past each have one of their own, since answers come in the order of the
requests, and who follows for ever asks for nothing else.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import grpc

from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil import seek_request
from selvedge_common.protoutil.errors import MalformedMessage
from selvedge_common.protoutil.field_count import has_more_fields
from selvedge_common.protoutil.wire import parse
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2

Kind = Literal["peer", "orderer"]

# A peer's answers have the numbers of the orderer's for what is asked for here, status and block,
# and are read as those: what else they may have is not taken apart.
METHODS = MappingProxyType(
    {"peer": "/protos.Deliver/Deliver", "orderer": "/orderer.AtomicBroadcast/Deliver"}
)

WAIT = ab_pb2.SeekInfo.BLOCK_UNTIL_READY
FAIL = ab_pb2.SeekInfo.FAIL_IF_NOT_READY

# What is read before it is asked for: no more of it once it has so many bytes.
_AHEAD_BYTES = 1024 * 1024
_AHEAD_MESSAGES = 64

# Transactions of a block, or entries of its metadata. Parsing makes an object of each.
MAX_FIELDS = 100_000
_TO_DATA, _TO_METADATA = (
    (ab_pb2.DeliverResponse.BLOCK_FIELD_NUMBER, field)
    for field in (
        common_pb2.Block.DATA_FIELD_NUMBER,
        common_pb2.Block.METADATA_FIELD_NUMBER,
    )
)

# How gRPC begins to say that a message is above this side's limit.
_TOO_LARGE = "CLIENT: Received message larger than max"

_OTHER = "the source's log for the reason"
_CHECKS: Mapping[int, str] = {
    common_pb2.NOT_FOUND: "that it has joined the channel; one that joined by a snapshot has no "
    "older blocks: read from another, or begin with {key}.start newest",
    common_pb2.FORBIDDEN: "that the channel's Readers policy admits the identity of {key}.msp, "
    "and that it has not expired",
    common_pb2.BAD_REQUEST: "the clocks of both, and that {key}.tls has the client certificate "
    "that this connection is to be made with",
    common_pb2.SERVICE_UNAVAILABLE: "that it has caught up with the channel",
}

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]


class SourceRefused(Exception):
    """The source answered with a status instead of blocks, or not at all. ``cause`` is what the
    metric calls it."""

    def __init__(self, cause: str, sentence: str) -> None:
        super().__init__(sentence)
        self.cause = cause

    @property
    def passes(self) -> bool:
        """Whether it may be over soon, with nobody having to mend anything."""
        return self.cause in ("ended", "timeout", "SERVICE_UNAVAILABLE")


class BlockTooLarge(Exception):
    """The source's next block is above ``source.maxRecvMsgSize``."""


class CredentialsUnusable(Exception):
    """A file of certificates or keys cannot be read or used just now."""


@dataclass(frozen=True)
class Dialled:
    """A channel to an address, and what requests on it are made with.

    Args:
        channel: not connected yet.
        signer: signs the requests.
        tls_cert_hash: SHA-256 of the TLS client certificate that the channel shows, or None.
    """

    channel: grpc.aio.Channel
    signer: SigningIdentity
    tls_cert_hash: bytes | None


Dial: TypeAlias = Callable[[str], Dialled]
"""Opens a channel to an address; reads the files anew. Raises OSError or ValueError."""


class SourceStream:
    """A Deliver stream of one channel, on a connection of its own; an async context manager.

    It reads a little ahead, so that whoever is slower than the source gets several answers at once.

    Args:
        dial: opens a channel to an address.
        kind: what the source is.
        address: which of its addresses.
        channel: the name of the channel.
        key: of the source in the settings, for sentences.
    """

    def __init__(self, dial: Dial, kind: Kind, address: str, channel: str, key: str) -> None:
        self._dial = dial
        self._kind = kind
        self._address = address
        self._channel = channel
        self._key = key
        self._dialled: Dialled
        self._call: Any
        self._requests: asyncio.Queue[common_pb2.Envelope | None] = asyncio.Queue()
        self._reading: asyncio.Task[None]
        self._ahead: deque[bytes] = deque()
        self._ahead_bytes = 0
        self._moved = asyncio.Event()
        self._awaited = False
        self._end: Exception | None = None

    @property
    def at_hand(self) -> int:
        """How many answers have come that were not read."""
        return len(self._ahead)

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for an answer, and none has come."""
        return self._awaited and not self._ahead

    @property
    def _full(self) -> bool:
        """Whether no more comes before something is read."""
        return self._ahead_bytes >= _AHEAD_BYTES or len(self._ahead) >= _AHEAD_MESSAGES

    async def __aenter__(self) -> "SourceStream":
        """Raises CredentialsUnusable: it cannot be dialled with what there is."""
        try:
            self._dialled = self._dial(self._address)
        except (OSError, ValueError) as error:
            raise CredentialsUnusable(str(error)) from error
        deliver: Any = self._dialled.channel.stream_stream(
            METHODS[self._kind],
            request_serializer=common_pb2.Envelope.SerializeToString,
            response_deserializer=None,
        )
        # Written by gRPC while answers are read: a write of our own that fails, since the source
        # has ended the stream, would hide what it answered before.
        self._call = deliver(self._written())
        self._reading = asyncio.create_task(self._read_ahead(), name="source stream")
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._requests.put_nowait(None)
        self._call.cancel()
        self._reading.cancel()
        try:
            # Not awaited itself: that we are cancelled meanwhile would look as if it was.
            await asyncio.wait([self._reading])
        finally:
            # Nothing that refers to itself is left: an open connection would wait for it to be
            # found.
            self._end = None
            del self._reading
            await self._dialled.channel.close(None)

    async def _written(self) -> AsyncIterator[common_pb2.Envelope]:
        while (request := await self._requests.get()) is not None:
            yield request

    def ask(
        self,
        first: seek_request.Position,
        last: seek_request.Position,
        behavior: seek_request.Behavior = FAIL,
    ) -> None:
        """Request the blocks from `first` to `last`; the answer ends with a status."""
        dialled = self._dialled
        self._requests.put_nowait(
            seek_request.seek_envelope(
                self._channel, first, last, behavior, dialled.signer, dialled.tls_cert_hash
            )
        )

    async def read(self) -> tuple[bytes, ab_pb2.DeliverResponse]:
        """The next answer, as it came and parsed.

        Raises:
            SourceRefused: the stream has ended, or the answer is none.
            BlockTooLarge: it is above the limit.
            grpc.aio.AioRpcError: the call failed.
        """
        await self.arrived()
        answer = self.first()
        self.advance()
        return answer

    async def arrived(self) -> None:
        """Return once an answer is at hand. Raises what `read` does."""
        while not self._ahead:
            if self._end is not None:
                raise self._end
            self._awaited = True
            await self._wait()
        self._awaited = False

    def first(self) -> tuple[bytes, ab_pb2.DeliverResponse]:
        """The first answer that is at hand. Raises SourceRefused if it is none."""
        response = self._ahead[0]
        if any(has_more_fields(response, MAX_FIELDS, way) for way in (_TO_DATA, _TO_METADATA)):
            raise SourceRefused(
                "malformed",
                f"the source sent a block of more than {MAX_FIELDS:,} parts, which no orderer "
                "makes; check that a peer or an orderer serves this address",
            )
        try:
            return response, parse(ab_pb2.DeliverResponse, response, "answer of the source")
        except MalformedMessage as error:
            raise SourceRefused(
                "malformed", f"{error} Check that a peer or an orderer serves this address."
            ) from error

    def advance(self) -> None:
        """Be done with the first answer that is at hand."""
        self._ahead_bytes -= len(self._ahead.popleft())
        self._moved.set()

    def end(self, reason: SourceRefused) -> None:
        """Tell whoever waits for an answer that none comes, and why."""
        self._end = reason
        self._moved.set()

    async def _read_ahead(self) -> None:
        """Read until the stream ends. A task of its own, since a read of gRPC that is cancelled
        while it fails forgets that it was."""
        try:
            while (response := await self._call.read()) is not EOF:
                self._ahead.append(response)
                self._end = None  # it was about to be left, for keeping this back
                self._ahead_bytes += len(response)
                del response
                self._moved.set()
                while self._full:
                    await self._wait()
        except grpc.aio.AioRpcError as error:
            too_large = _TOO_LARGE in str(error.details())
            self._end = BlockTooLarge(str(error.details())) if too_large else error
        except Exception as error:
            self._end = error  # a fault, for whoever waits
        finally:
            # Whoever waits hears of an end in any case.
            if self._end is None:
                self._end = SourceRefused("ended", "the source ended the stream")
            self._moved.set()

    async def _wait(self) -> None:
        """Return when there is more, or less, to be read."""
        self._moved.clear()
        await self._moved.wait()

    async def one(self, number: seek_request.Position) -> common_pb2.Block:
        """Ask for one block, and take the whole answer.

        Raises:
            SourceRefused: the source does not give it.
        """
        self.ask(number, number)
        block = None
        while True:
            _, response = await self.read()
            if response.WhichOneof("Type") == "block":
                block = response.block
            elif response.status == common_pb2.SUCCESS and block is not None:
                break
            else:
                raise self.refusal(response)
        if isinstance(number, int) and block.header.number != number:
            raise SourceRefused(
                "malformed",
                f"the source sent block {block.header.number} where block {number} was asked for; "
                "check that a peer or an orderer serves this address",
            )
        return block

    def refusal(self, response: ab_pb2.DeliverResponse) -> SourceRefused:
        """What an answer that is no block means."""
        status = response.status
        known = common_pb2.Status.values()
        name = common_pb2.Status.Name(status) if status in known else str(status)
        return SourceRefused(
            name,
            f"the source answered {name} to a request for the blocks of {self._channel}; "
            "check " + _CHECKS.get(status, _OTHER).format(key=self._key),
        )
