"""The blocks of a channel, pulled from a peer over ``protos.Deliver/Deliver``.

The source reads one block after another and waits whenever the processor is full, which holds the
peer back through the stream's own flow control: nothing is ever dropped on this way.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grpc

from event_hub import metrics
from event_hub.channels.block import ChannelBlock
from event_hub.sources.chain import Chain, ChainError, Position
from selvedge_common.logs import get_logger
from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil import seek_request
from selvedge_common.protoutil.errors import MalformedMessage
from selvedge_common.protoutil.wire import parse
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.peer import events_pb2

log = get_logger("eventhub.source")

# How gRPC begins to say that a message is above this side's limit.
_TOO_LARGE = "CLIENT: Received message larger than max"

METHOD = "/protos.Deliver/Deliver"

# Whole DeliverResponses as they came: the hub passes their bytes on.
Responses = AsyncIterator[bytes]


class SourceRefused(Exception):
    """The peer answered with a status instead of blocks. ``cause`` is what the metric calls it."""

    def __init__(self, cause: str, sentence: str) -> None:
        super().__init__(sentence)
        self.cause = cause


class SourceUnfit(Exception):
    """A source has another channel than the one this hub has read, or a block that is too large
    for it: somebody has to decide."""


@dataclass(frozen=True)
class DeliverConfig:
    """Which channel to read, from whom.

    Args:
        addresses: peers as host:port, tried in turn.
        channel: the channel.
        start: where to begin when nothing was read yet.
        reconnect_initial: seconds of the first pause between attempts.
        reconnect_max: seconds of the longest one.
        max_block_bytes: the largest message that the channel takes.
        answer_timeout: seconds that a peer may take until it has answered what it has at once.
    """

    addresses: Sequence[str]
    channel: str
    start: Literal["oldest", "newest"]
    reconnect_initial: float
    reconnect_max: float
    max_block_bytes: int
    answer_timeout: float


@dataclass(frozen=True)
class Credentials:
    """What the hub shows a peer, read anew for each connection.

    Args:
        signer: signs the requests.
        tls_cert_hash: SHA-256 of the TLS client certificate, or None without TLS.
    """

    signer: SigningIdentity
    tls_cert_hash: bytes | None


class DeliverSource:
    """Follows one channel for as long as it runs, whatever happens to the peers.

    Args:
        config: what to read.
        dial: opens a channel to an address.
        credentials: gives what the hub shows the peer.
        chain: the channel as far as it was read; blocks are checked against it.
        take: what becomes of a block, given with its position, and whether it is history: whether
            it was there before the stream was. It may wait as long as it likes.
    """

    def __init__(
        self,
        config: DeliverConfig,
        dial: Callable[[str], grpc.aio.Channel],
        credentials: Callable[[], Credentials],
        chain: Chain,
        take: Callable[[ChannelBlock, Position, bool], Awaitable[None]],
    ) -> None:
        self._config = config
        self._dial = dial
        self._credentials = credentials
        self._chain = chain
        self._take = take
        self._connected = metrics.SOURCE_CONNECTED.labels(channel=config.channel)
        self._failures = 0
        self._cause: str | None = ""
        self._unfit: str | None = None

    async def run(self) -> None:
        """Read blocks, connecting again whenever the stream ends."""
        for address in itertools.cycle(self._config.addresses):
            cause = await self._attempt(address)
            self._connected.set(0)
            metrics.SOURCE_FAILURES.labels(channel=self._config.channel, cause=cause).inc()
            await asyncio.sleep(self._pause())

    def check_health(self) -> None:
        """Raises SourceUnfit once a source had blocks that do not continue those that were read, or
        one that is too large, until blocks were read that were there when the stream began. A
        source that is not there is waited for."""
        if self._unfit is not None:
            raise SourceUnfit(self._unfit)

    async def _attempt(self, address: str) -> str:
        """Read from one peer until that fails; gives the short name of the cause."""
        try:
            shown, opened = self._credentials(), self._dial(address)
        except (OSError, ValueError) as error:
            # Certificates that cannot be read or used just now.
            return self._failed("credentials", address, str(error), loud=True)
        try:
            async with opened as channel:
                deliver = channel.stream_stream(
                    METHOD,
                    request_serializer=common_pb2.Envelope.SerializeToString,
                    response_deserializer=None,
                )
                call = deliver(iter(self._requests(shown)))
                # A call and an iterator of it that has not ended hold each other, and with them the
                # connection, closed channel or not, until garbage is collected.
                unended: Any = aiter(call)
                async with contextlib.aclosing(unended) as responses:
                    await self._follow(responses, address)
        except grpc.aio.AioRpcError as error:
            if _TOO_LARGE in str(error.details()):
                return self._too_large(address, str(error.details()))
            return self._failed(error.code().name, address, str(error.details()))
        except SourceRefused as error:
            return self._failed(error.cause, address, str(error), loud=True)
        except ChainError as error:
            self._unfit = f"the source {address}: {error}"
            return self._failed(error.cause, address, str(error), loud=True)
        except Exception as error:
            # A fault of ours: the block it came with was not taken, and is asked for again.
            log.exception("fault while reading the source")
            return self._failed("fault", address, f"{type(error).__name__}: {error}", loud=True)
        return self._failed("ended", address, "the source ended the stream")

    def _requests(self, shown: Credentials) -> list[common_pb2.Envelope]:
        """Ask for the newest block, for the one that was read last, and for all that follow it.

        The first says where history ends, and whether it ends before what was read: a peer whose
        ledger was replaced by a shorter one would otherwise keep the hub waiting in silence. The
        second says whether it is the same history.
        """
        last = self._chain.last
        begin = seek_request.NEWEST if self._config.start == "newest" else seek_request.OLDEST
        wait, fail = ab_pb2.SeekInfo.BLOCK_UNTIL_READY, ab_pb2.SeekInfo.FAIL_IF_NOT_READY
        newest = self._request(shown, seek_request.NEWEST, seek_request.NEWEST, fail)
        if last is None:
            return [newest, self._request(shown, begin, seek_request.FOREVER, wait)]
        return [
            newest,
            self._request(shown, last.number, last.number, fail),
            self._request(shown, last.number + 1, seek_request.FOREVER, wait),
        ]

    async def _follow(self, responses: Responses, address: str) -> None:
        try:
            async with asyncio.timeout(self._config.answer_timeout):
                newest = await self._compare(responses)
        except TimeoutError:
            raise SourceRefused(
                "timeout",
                "the source has not answered for the "
                f"{self._config.answer_timeout:g} s of source.answerTimeout",
            ) from None
        self._stands(address, newest)
        self._accept(newest)
        async for response in responses:
            block = ChannelBlock(self._config.channel, response, self._block(parsed(response)))
            position = self._chain.check(block.message)
            await self._take(block, position, position.number <= newest)
            self._chain.last = position
            self._accept(newest)

    async def _compare(self, responses: Responses) -> int:
        """Hold what the source has against what was read; gives the number of its newest block."""
        newest = (await self._one(responses)).header.number
        self._chain.reaches(newest)
        if self._chain.last is not None:
            self._chain.recognise(await self._one(responses))
        return newest

    async def _one(self, responses: Responses) -> common_pb2.Block:
        """Take the answer to a request for one block."""
        block = None
        async for each in responses:
            response = parsed(each)
            if response.WhichOneof("Type") != "status":
                block = response.block
            elif response.status == common_pb2.SUCCESS and block is not None:
                return block
            else:
                raise self._refusal(response.status)
        raise SourceRefused("ended", "the source ended the stream instead of answering")

    def _request(
        self,
        credentials: Credentials,
        start: seek_request.Position,
        stop: seek_request.Position,
        behavior: seek_request.Behavior,
    ) -> common_pb2.Envelope:
        return seek_request.seek_envelope(
            self._config.channel,
            start,
            stop,
            behavior,
            credentials.signer,
            credentials.tls_cert_hash,
        )

    def _block(self, response: events_pb2.DeliverResponse) -> common_pb2.Block:
        if response.WhichOneof("Type") != "block":
            raise self._refusal(response.status)
        return response.block

    def _refusal(self, status: common_pb2.Status.ValueType) -> SourceRefused:
        known = common_pb2.Status.values()
        name = common_pb2.Status.Name(status) if status in known else str(status)
        return SourceRefused(
            name,
            f"the source answered {name} to a request for the blocks of {self._config.channel}; "
            "check that it has joined the channel and lets this hub's identity read it",
        )

    def _accept(self, newest: int) -> None:
        """Forget that a source was unfit, once all that this one had can be read."""
        if self._chain.last is not None and self._chain.last.number >= newest:
            self._unfit = None

    def _stands(self, address: str, newest: int) -> None:
        log.info(
            "source connected",
            address=address,
            channel=self._config.channel,
            last=self._chain.last.number if self._chain.last else None,
            newest=newest,
        )
        self._failures = 0
        self._cause = None
        self._connected.set(1)

    def _too_large(self, address: str, details: str) -> str:
        """A block that will be as large at every attempt."""
        last = self._chain.last
        after = f"after block {last.number}" if last else "at the beginning"
        sentence = (
            f"a block of {self._config.channel} {after} is larger than the "
            f"{self._config.max_block_bytes} bytes of source.maxRecvMsgSize ({details}); "
            "raise that and start the hub again"
        )
        self._unfit = f"the source {address}: {sentence}"
        return self._failed("block_too_large", address, sentence, loud=True)

    def _failed(self, cause: str, address: str, reason: str, *, loud: bool = False) -> str:
        # The same failure again is no news, unless somebody has to mend it.
        level = log.error if loud else log.debug if cause == self._cause else log.warning
        level(
            "source lost" if self._cause is None else "source not reached",
            cause=cause,
            address=address,
            channel=self._config.channel,
            reason=reason,
        )
        self._cause = cause
        return cause

    def _pause(self) -> float:
        """Seconds until the next attempt: doubling, and spread so that hubs do not come in step."""
        longest = self._config.reconnect_initial * 2.0 ** min(self._failures, 30)
        self._failures += 1
        return min(longest, self._config.reconnect_max) * random.uniform(0.5, 1.0)  # noqa: S311


def parsed(response: bytes) -> events_pb2.DeliverResponse:
    """Parse an answer. Raises SourceRefused."""
    try:
        return parse(events_pb2.DeliverResponse, response, "answer of the source")
    except MalformedMessage as error:
        raise SourceRefused("malformed", f"{error} Check that it is a peer.") from error
