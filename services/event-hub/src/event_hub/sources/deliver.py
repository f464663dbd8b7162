"""The blocks of a channel, pulled from its source as they come.

The reader waits whenever the processor is full, which holds the source back through the stream's
own flow control: nothing is ever dropped on this way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

import grpc

from event_hub import metrics
from event_hub.channels.block import ChannelBlock
from event_hub.channels.status import SourceStatus
from event_hub.sources.addresses import Addresses
from event_hub.sources.chain import Chain, ChainError, Position, check_codes
from event_hub.sources.connection import (
    WAIT,
    BlockTooLarge,
    CredentialsUnusable,
    Dial,
    Kind,
    SourceRefused,
    SourceStream,
)
from event_hub.sources.rivals import Rivals
from event_hub.sources.trust import Trust
from selvedge_common.logs import get_logger
from selvedge_common.protoutil import metadata, seek_request
from selvedge_common.protoutil.errors import MalformedBlock

log = get_logger("eventhub.source")

# How many times as long as it takes to check blocks it rests: what has come meanwhile is judged by
# one signature, and leaves together. A block that comes after the rest is taken at once. And the
# longest rest, in seconds.
_REST = 8
_LONGEST_REST = 0.005


class SourceUnfit(Exception):
    """A source has another channel than the one this hub has read, or a block that is too large
    for it: somebody has to decide."""


@dataclass(frozen=True)
class DeliverConfig:
    """Which channel to read, from what.

    Args:
        key: of the source in the settings, for sentences.
        kind: what the source is.
        channel: the channel.
        start: where to begin when nothing was read yet.
        max_block_bytes: the largest message that the connection takes.
        answer_timeout: seconds that an address may take until it has answered what it has at once.
    """

    key: str
    kind: Kind
    channel: str
    start: Literal["oldest", "newest"]
    max_block_bytes: int
    answer_timeout: float


class DeliverSource:
    """Follows one channel for as long as it runs, whatever happens to the source.

    Args:
        config: what to read.
        dial: opens a channel to an address.
        addresses: those of the source.
        chain: the channel as far as it was read; blocks are checked against it.
        trust: judges whether the orderers signed them.
        rivals: compares the address that is followed with the others.
        status: kept at what is known of the source.
        take: what becomes of a block, given with its position, and whether it is history: whether
            it was there before the stream was. It may wait as long as it likes.
    """

    def __init__(
        self,
        config: DeliverConfig,
        dial: Dial,
        addresses: Addresses,
        chain: Chain,
        trust: Trust,
        rivals: Rivals,
        status: SourceStatus,
        take: Callable[[ChannelBlock, Position, bool], Awaitable[None]],
    ) -> None:
        self._config = config
        self._dial = dial
        self._addresses = addresses
        self._chain = chain
        self._trust = trust
        self._rivals = rivals
        self._status = status
        self._take = take
        self._validated = config.kind == "peer"
        self._connected = metrics.SOURCE_CONNECTED.labels(channel=config.channel)
        self._causes: dict[str, str] = {}  # by address, why it failed last
        self._unfit: str | None = None

    async def run(self) -> None:
        """Read blocks, connecting again whenever the stream ends."""
        while True:
            address, pause = self._addresses.next(first=self._rivals.ahead)
            await asyncio.sleep(pause)
            cause = await self._attempt(address)
            self._connected.set(0)
            self._status.address = ""
            self._addresses.failed(address)
            metrics.SOURCE_FAILURES.labels(channel=self._config.channel, cause=cause).inc()

    def check_health(self) -> None:
        """Raises SourceUnfit once a source had blocks that do not continue those that were read, or
        one that is too large, until blocks were read that were there when the stream began. A
        source that is not there is waited for."""
        if self._unfit is not None:
            raise SourceUnfit(self._unfit)

    async def _attempt(self, address: str) -> str:
        """Read from one address until that fails; gives the short name of the cause."""
        try:
            config = self._config
            async with SourceStream(
                self._dial, config.kind, address, config.channel, config.key
            ) as stream:
                await self._follow(stream, address)
        except CredentialsUnusable as error:
            return self._failed("credentials", address, str(error), loud=True)
        except grpc.aio.AioRpcError as error:
            return self._failed(error.code().name, address, str(error.details()))
        except SourceRefused as error:
            return self._failed(error.cause, address, str(error), loud=not error.passes)
        except BlockTooLarge as error:
            self._unfit = f"the source {address}: {self._too_large(str(error))}"
            return self._failed("block_too_large", address, self._too_large(str(error)), loud=True)
        except ChainError as error:
            self._unfit = f"the source {address}: {error}"
            return self._failed(error.cause, address, str(error), loud=True)
        except Exception as error:
            # A fault of ours: the block it came with was not taken, and is asked for again.
            log.exception("fault while reading the source")
            return self._failed("fault", address, f"{type(error).__name__}: {error}", loud=True)

    async def _follow(self, stream: SourceStream, address: str) -> NoReturn:
        try:
            async with asyncio.timeout(self._config.answer_timeout):
                newest = await self._compare(stream)
        except TimeoutError:
            raise SourceRefused(
                "timeout",
                "the source has not answered for the "
                f"{self._config.answer_timeout:g} s of {self._config.key}.answerTimeout",
            ) from None
        self._stands(address, newest)
        last = self._chain.last
        first: seek_request.Position = seek_request.OLDEST
        if last is not None:
            first = last.number + 1
        elif self._config.start == "newest":
            first = self._chain.first = newest
        stream.ask(first, seek_request.FOREVER, WAIT)
        self._accept(address, newest)
        async with self._rivals.compared(stream, address):
            await self._take_all(stream, address, newest)

    async def _take_all(self, stream: SourceStream, address: str, newest: int) -> NoReturn:
        clock = asyncio.get_running_loop().time
        while True:
            await self._arrived(stream, newest)
            began = clock()
            for block in self._judged(self._read(stream)):
                await self._pass_on(block, newest)
            self._addresses.stands(address)
            self._accept(address, newest)
            rest = min(_REST * (clock() - began), _LONGEST_REST)
            await asyncio.sleep(0 if stream.at_hand else rest)

    async def _compare(self, stream: SourceStream) -> int:
        """Hold what the source has against what was read; gives the number of its newest block.

        A source whose ledger was replaced by a shorter one would otherwise keep the hub waiting in
        silence, and one with another history would be found out only by its next block.
        """
        newest = await stream.one(seek_request.NEWEST)
        self._chain.reaches(newest.header.number)
        told = newest if self._config.start == "newest" else None
        if self._chain.last is not None:
            told = await stream.one(self._chain.last.number)
            self._chain.recognise(told)
        # Before the first block was taken, an earlier attempt may have begun with an older one.
        if told is not None and (not self._trust.begun or self._chain.last is None):
            try:
                number = metadata.last_config(told)
            except MalformedBlock as error:
                raise SourceRefused("malformed", str(error)) from error
            if not self._trust.reaches(number):
                self._trust.begin(await stream.one(number))
        return newest.header.number

    async def _arrived(self, stream: SourceStream, newest: int) -> None:
        """Wait for an answer; not for long if the source said that it has one."""
        last = self._chain.last
        if last is not None and last.number >= newest:
            return await stream.arrived()
        try:
            async with asyncio.timeout(self._config.answer_timeout):
                return await stream.arrived()
        except TimeoutError:
            after = "nothing" if last is None else f"nothing after block {last.number}"
            raise SourceRefused(
                "timeout",
                f"the source says that it has block {newest}, and has sent {after} for the "
                f"{self._config.answer_timeout:g} s of {self._config.key}.answerTimeout",
            ) from None

    def _read(self, stream: SourceStream) -> Sequence[ChannelBlock]:
        """Give the blocks that are at hand, each of which names the one before it, up to one by
        which those after it are judged. Raises SourceRefused or ChainError, for the first one."""
        blocks: list[ChannelBlock] = []
        last = self._chain.last
        while stream.at_hand:
            try:
                block, last = self._check(stream, last)
            except (SourceRefused, ChainError):
                if not blocks:
                    raise
                break  # the others come first
            stream.advance()
            blocks.append(block)
            if block.is_config or not self._trust.begun:
                break
        return blocks

    def _check(self, stream: SourceStream, last: Position | None) -> tuple[ChannelBlock, Position]:
        raw, response = stream.first()
        if response.WhichOneof("Type") != "block":
            raise stream.refusal(response)
        message = response.block
        position = self._chain.check(message, last)
        if self._validated:
            check_codes(message)
        block = ChannelBlock(
            self._config.channel,
            raw,
            message,
            validated=self._validated,
            block_hash=position.hash,
        )
        return block, position

    def _judged(self, blocks: Sequence[ChannelBlock]) -> Iterator[ChannelBlock]:
        """Give those that are the channel's, and judge the next ones by the last. Raises
        ChainError, for one that is not."""
        if self._trust.begun:
            for block in self._trust.proven(blocks):
                if block.is_config:
                    self._trust.move_on(block.message)
                yield block
        elif blocks:
            self._trust.begin(blocks[0].message)
            yield blocks[0]

    async def _pass_on(self, block: ChannelBlock, newest: int) -> None:
        position = Position(block.number, block.hash)
        await self._take(block, position, position.number <= newest)
        self._chain.last = position
        self._status.newest = max(position.number, self._status.newest or 0)

    def _accept(self, address: str, newest: int) -> None:
        """Forget what was wrong, once all that the source had at first can be read."""
        if self._chain.last is not None and self._chain.last.number >= newest:
            self._unfit = None
            self._status.trouble = ""
            self._addresses.stands(address)

    def _stands(self, address: str, newest: int) -> None:
        log.info(
            "source connected",
            address=address,
            channel=self._config.channel,
            last=self._chain.last.number if self._chain.last else None,
            newest=newest,
        )
        self._causes.pop(address, None)
        self._connected.set(1)
        self._status.address = address
        self._status.newest = newest
        self._status.trouble = self._unfit or ""

    def _too_large(self, details: str) -> str:
        """What to do about a block that will be as large at every attempt."""
        last = self._chain.last
        after = f"after block {last.number}" if last else "at the beginning"
        return (
            f"a block of {self._config.channel} {after} is larger than the "
            f"{self._config.max_block_bytes} bytes of {self._config.key}.maxRecvMsgSize "
            f"({details}); raise that and start the hub again"
        )

    def _failed(self, cause: str, address: str, reason: str, *, loud: bool = False) -> str:
        # The same failure again is no news, unless somebody has to mend it.
        again = cause == self._causes.get(address)
        level = log.error if loud else log.debug if again else log.warning
        level(
            "source lost" if self._status.address else "source not reached",
            cause=cause,
            address=address,
            channel=self._config.channel,
            reason=reason,
        )
        self._causes[address] = cause
        self._status.trouble = self._unfit or f"the source {address}: {reason}"
        return cause
