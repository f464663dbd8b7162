"""Blocks that the hub told of before and does not keep any more, read from the source again.

All who want the past of a channel share one stream beside the live one. It reads a range ahead for
whoever has waited longest, and what it read is there for all who go through the same region.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from event_hub import metrics
from event_hub.channels.block import ChannelBlock
from event_hub.channels.past import PastBlocks
from event_hub.sources.addresses import Addresses
from event_hub.sources.chain import ChainError, Fork, Gap, check_codes, check_data
from event_hub.sources.connection import (
    BlockTooLarge,
    CredentialsUnusable,
    Dial,
    Kind,
    SourceRefused,
    SourceStream,
)
from event_hub.sources.trust import Trust
from selvedge_common.logs import get_logger
from selvedge_common.protoutil.errors import BlockUnavailable
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2

log = get_logger("eventhub.history")

# After so many seconds in which nobody wanted anything the stream ends.
IDLE_SECONDS = 60.0
# So many seconds after a block was unfit it is asked for again, whoever wants it.
LOOK_AGAIN_SECONDS = 60.0

# What one request is to bring, unless a single block is larger. Where many read in many places it
# is less, so that what the others get does not push out what one has yet to take.
_RANGE_BYTES = 2 * 1024 * 1024
_RANGE_BLOCKS = 256
# By how much more is read ahead after each range of which nothing was lost.
_RANGE_STEP = 64 * 1024
# What a block is taken for as long as none was read.
_UNKNOWN_BYTES = 128 * 1024
# Requests on their way at a time: the source begins with the next while the last one is read.
_REQUESTS = 2
# A signature covers the blocks before it as well, since each is bound to the one before: one is
# checked for so many.
_PROVEN_AT_ONCE = 32


@dataclass(frozen=True)
class HistoryConfig:
    """Which channel's past, from what.

    Args:
        key: of the source in the settings, for sentences.
        kind: what the source is.
        channel: the channel.
        max_bytes: what blocks may take in memory (``source.historyBytes``); the one that was read
            last is kept in any case.
        answer_timeout: seconds that an address may take for an answer, and that readers wait for
            while no address answers.
    """

    key: str
    kind: Kind
    channel: str
    max_bytes: int
    answer_timeout: float


@dataclass(slots=True)
class _Wanted:
    """A block that somebody waits for."""

    found: asyncio.Future[ChannelBlock | str]  # or the reason why it cannot be had
    since: float
    readers: int = 0
    # By address, why it does not give the block.
    refused: dict[str, str] = field(default_factory=dict)
    unfit: bool = False  # at one of these, whose block is none to be given

    @property
    def refusals(self) -> str:
        """What all these addresses say."""
        return "; ".join(f"{address}: {why}" for address, why in self.refused.items())


@dataclass(slots=True)
class _Range:
    """A request on its way.

    Attributes:
        first: the first block that was not given to its readers yet.
        last: the last that was asked for.
        previous: the hash of the block before the one that comes next, if it is known.
        unproven: those that came, and wait for a signature to be checked.
        bytes: what came so far.
    """

    first: int
    last: int
    previous: bytes | None
    unproven: list[ChannelBlock] = field(default_factory=list)
    bytes: int = 0

    @property
    def next(self) -> int:
        """The number of the block that comes next."""
        return self.first + len(self.unproven)


class History:
    """The past of one channel.

    Args:
        config: what to read.
        dial: opens a channel to an address.
        addresses: those of the source.
        live: the address that is read for new blocks, which is asked first; empty while none is.
        height: how many blocks may be read.
        trust: judges whether the orderers signed them.
        idle: seconds after which a stream that nobody needs ends.
        look_again: seconds after which a block that was unfit is asked for again.
    """

    def __init__(
        self,
        config: HistoryConfig,
        dial: Dial,
        addresses: Addresses,
        live: Callable[[], str],
        height: Callable[[], int],
        trust: Trust,
        idle: float = IDLE_SECONDS,
        look_again: float = LOOK_AGAIN_SECONDS,
    ) -> None:
        self._config = config
        self._dial = dial
        self._addresses = addresses
        self._live = live
        self._height = height
        self._trust = trust
        self._idle = idle
        self._look_again = look_again
        # In the order in which they were asked for; no block is in both.
        self._wanted: OrderedDict[int, _Wanted] = OrderedDict()
        self._blocks = PastBlocks(config.max_bytes)
        self._asked = asyncio.Event()  # set while anything is wanted
        self._ranges: deque[_Range] = deque()
        self._block_bytes = _UNKNOWN_BYTES  # of late, rather too large
        self._range_bytes = min(_RANGE_BYTES, config.max_bytes // 4)
        self._progress = 0.0  # when a block was read last
        self._failing: set[str] = set()  # addresses that failed since
        self._causes: dict[str, str] = {}  # by address, why it failed last
        # The first block that was unfit, and has not been given since.
        self._unfit: int | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._count = metrics.HISTORY_BLOCKS.labels(channel=config.channel)
        held, waiting = metrics.HISTORY_BYTES, metrics.HISTORY_WAITING
        held.labels(channel=config.channel).set_function(lambda: self._blocks.held_bytes)
        waiting.labels(channel=config.channel).set_function(lambda: len(self._wanted))
        unfit = metrics.HISTORY_UNFIT.labels(channel=config.channel)
        unfit.set_function(lambda: self._unfit is not None)

    async def read(self, number: int) -> ChannelBlock:
        """Give one block, which is below the height.

        Raises:
            BlockUnavailable: no address gives it.
        """
        block = self._blocks.get(number)
        if block is not None:
            return block
        wanted = self._want(number)
        try:
            # Shielded: others may want it too.
            found = await asyncio.shield(wanted.found)
        finally:
            wanted.readers -= 1
            if not wanted.readers and self._wanted.get(number) is wanted:
                del self._wanted[number]
        if isinstance(found, str):
            raise BlockUnavailable(
                common_pb2.SERVICE_UNAVAILABLE,
                f"block {number} of {self._config.channel} is not kept here, and no source gives "
                f"it: {found}",
            )
        return found

    async def run(self) -> None:
        """Read what is wanted, for as long as it runs."""
        while True:
            await self._asked.wait()
            oldest = next(iter(self._wanted.values()), None)
            if oldest is None:
                self._asked.clear()
                continue
            address, pause = self._addresses.next(first=self._live(), without=oldest.refused)
            await asyncio.sleep(pause)
            await self._attempt(address)
            self._ranges.clear()

    def _want(self, number: int) -> _Wanted:
        """Ask for a block, like all others who want it."""
        wanted = self._wanted.get(number)
        if wanted is None:
            loop = asyncio.get_running_loop()
            wanted = self._wanted[number] = _Wanted(loop.create_future(), loop.time())
            self._asked.set()
        wanted.readers += 1
        return wanted

    async def _attempt(self, address: str) -> None:
        """Read from one address until that fails, or nobody wants anything of it."""
        config = self._config
        try:
            async with SourceStream(
                self._dial, config.kind, address, config.channel, config.key
            ) as stream:
                await self._serve(stream, address)
        except CredentialsUnusable as error:
            self._failed("credentials", address, str(error))
        except grpc.aio.AioRpcError as error:
            self._failed(error.code().name, address, str(error.details()))
        except BlockTooLarge as error:
            too_large = f"a block is larger than {config.key}.maxRecvMsgSize allows: {error}"
            self._failed("block_too_large", address, too_large, refused=True, unfit=True)
        except SourceRefused as error:
            self._failed(error.cause, address, str(error), refused=not error.passes)
        except ChainError as error:
            self._failed(error.cause, address, str(error), refused=True, unfit=True)
        except Exception as error:
            log.exception("fault while reading the past")
            self._failed("fault", address, f"{type(error).__name__}: {error}", refused=True)

    async def _serve(self, stream: SourceStream, address: str) -> None:
        live = self._live()
        while True:
            moved = self._live() not in ("", live, address)
            while not moved and len(self._ranges) < _REQUESTS:
                number = self._next_wanted()
                if number is None:
                    break
                self._ask(stream, number)
            if self._ranges:
                if not await self._take_answer(stream):
                    return
                self._addresses.stands(address)
                self._causes.pop(address, None)
            elif moved or not await self._anything_wanted():
                return

    def _next_wanted(self) -> int | None:
        """What was asked for first of what is not on its way yet."""
        return next((number for number in self._wanted if not self._is_coming(number)), None)

    def _is_coming(self, number: int) -> bool:
        return any(each.first <= number <= each.last for each in self._ranges)

    async def _anything_wanted(self) -> bool:
        """Wait until something is, but no longer than an idle stream lasts."""
        self._asked.clear()
        try:
            async with asyncio.timeout(self._idle):
                await self._asked.wait()
        except TimeoutError:
            return False
        return True

    def _ask(self, stream: SourceStream, first: int) -> None:
        blocks_ahead = max(1, min(_RANGE_BLOCKS, self._range_bytes // self._block_bytes))
        last, end = first, min(first + blocks_ahead, self._height()) - 1
        while last < end and last + 1 not in self._blocks and not self._is_coming(last + 1):
            last += 1
        before = self._blocks.peek(first - 1)
        previous = before.hash if before is not None else None
        self._ranges.append(_Range(first, last, previous))
        stream.ask(first, last)

    async def _take_answer(self, stream: SourceStream) -> bool:
        """Take one answer; False when the rest of them is not worth waiting for.

        Raises:
            SourceRefused, ChainError: the source does not give the next block.
        """
        current = self._ranges[0]
        try:
            raw, response = await self._answer(stream)
            is_block = response.WhichOneof("Type") == "block"
            if is_block:
                validated = self._config.kind == "peer"
                channel = self._config.channel
                self._take(current, ChannelBlock(channel, raw, response.block, validated=validated))
            elif response.status != common_pb2.SUCCESS or current.next <= current.last:
                raise stream.refusal(response)
        except Exception:
            # It is not the fault of those that came before.
            self._prove(current)
            raise
        if is_block:
            if current.next <= current.last and current.bytes >= 2 * _RANGE_BYTES:
                # Blocks grew: what comes is a multiple of what was meant to.
                self._prove(current)
                return False
            return True
        self._ranges.popleft()
        step = -(self._range_bytes // 2) if self._blocks.lost() else _RANGE_STEP
        self._range_bytes = min(self._range_bytes + step, _RANGE_BYTES, self._config.max_bytes // 4)
        return True

    async def _answer(self, stream: SourceStream) -> tuple[bytes, ab_pb2.DeliverResponse]:
        timeout = self._config.answer_timeout
        try:
            async with asyncio.timeout(timeout):
                return await stream.read()
        except TimeoutError:
            sentence = f"the source has not answered for the {timeout:g} s of {self._config.key}"
            raise SourceRefused("timeout", f"{sentence}.answerTimeout") from None

    def _take(self, current: _Range, block: ChannelBlock) -> None:
        """Take the next block of a range. Raises ChainError."""
        is_first = not current.bytes
        _check_next(current, block)
        current.unproven.append(block)
        current.previous = block.hash
        current.bytes += block.held_bytes
        average = self._block_bytes + (block.held_bytes - self._block_bytes) // 8
        self._block_bytes = max(average, block.held_bytes)
        self._progress = asyncio.get_running_loop().time()
        self._failing.clear()
        self._count.inc()
        # The first is what somebody waits for.
        if is_first or len(current.unproven) == _PROVEN_AT_ONCE or current.next > current.last:
            self._prove(current)

    def _prove(self, current: _Range) -> None:
        """Check the signature of the last block that came, and give all to their readers.

        Raises:
            ChainError: a block is not one of the channel; those before it were given.
        """
        for _ in self._trust.proven(tuple(current.unproven)):
            self._give(current)

    def _give(self, current: _Range) -> None:
        """Give the first block of a range to its readers."""
        block = current.unproven.pop(0)
        number = current.first
        current.first += 1
        wanted = self._wanted.pop(number, None)
        if wanted is not None:
            wanted.found.set_result(block)
        self._blocks.add(block, asked=wanted is not None)
        if self._unfit == number:
            self._unfit = None

    def _failed(
        self, cause: str, address: str, reason: str, *, refused: bool = False, unfit: bool = False
    ) -> None:
        """Note that an address failed, or that it refused the block that was to come next, or gave
        one that is unfit."""
        again = cause == self._causes.get(address)
        self._causes[address] = cause
        level = log.error if refused else log.debug if again else log.warning
        level(
            "the past cannot be read",
            cause=cause,
            address=address,
            channel=self._config.channel,
            reason=reason,
        )
        metrics.HISTORY_FAILURES.labels(channel=self._config.channel, cause=cause).inc()
        self._addresses.failed(address)
        if refused and self._ranges:
            self._refused(self._ranges[0].first, address, reason, unfit=unfit)
        self._failing.add(address)
        if len(self._failing) < len(self._addresses):
            return
        now = asyncio.get_running_loop().time()
        for number, wanted in tuple(self._wanted.items()):
            if now - max(wanted.since, self._progress) >= self._config.answer_timeout:
                self._give_up(number, f"{address}: {reason}")

    def _refused(self, number: int, address: str, reason: str, *, unfit: bool) -> None:
        wanted = self._wanted.get(number)
        if wanted is None:
            return  # it was read ahead; who comes to it asks for it first
        wanted.refused[address] = reason
        wanted.unfit = wanted.unfit or unfit
        if len(wanted.refused) == len(self._addresses):
            self._give_up(number, wanted.refusals)

    def _give_up(self, number: int, reason: str) -> None:
        wanted = self._wanted.pop(number)
        wanted.found.set_result(reason)
        if wanted.unfit and self._unfit is None:
            self._unfit = number
        if self._unfit == number and self._looking is None:
            # When it is mended that is to be seen, though nobody else may ask for it any more.
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(self._look_again, self._want_again)

    def _want_again(self) -> None:
        self._looking = None
        if self._unfit is not None:
            self._want(self._unfit)


def _check_next(current: _Range, block: ChannelBlock) -> None:
    """Check that a block is the next one of a range. Raises ChainError."""
    header = block.message.header
    if header.number != current.next or header.number > current.last:
        raise Gap(
            f"the source sent block {header.number} where block {current.next} was asked for; "
            "check that it serves the whole channel"
        )
    if current.previous is not None and header.previous_hash != current.previous:
        raise Fork(
            f"block {header.number} of the source does not follow the block {header.number - 1} "
            "that it gave; the source's ledger is altered"
        )
    check_data(block.message)
    if block.validated:
        check_codes(block.message)
