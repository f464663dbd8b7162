"""The other addresses of a source, asked for what the one that is followed may keep back.

A source that was read to its end, and then tells of no new blocks, looks like a channel where
nothing happens. Only another one can tell the difference: Fabric's peers compare their orderers so
(release 3.1, common/deliverclient/blocksprovider/bft_censorship_monitor.go).
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from event_hub.sources.chain import Chain, ChainError, Position, check_codes
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
from selvedge_common.protoutil import seek_request

log = get_logger("eventhub.source")

_SPREAD = (0.75, 1.25)


@dataclass(frozen=True)
class RivalsConfig:
    """Which channel is compared, and how.

    Args:
        key: of the source in the settings, for sentences.
        kind: what the source is.
        channel: the channel.
        addresses: all those of the source.
        interval: seconds without a block after which another address is asked; 0 for never.
        answer_timeout: seconds that an address may take for an answer, and that the one that is
            followed may take for a block that another one has.
    """

    key: str
    kind: Kind
    channel: str
    addresses: Sequence[str]
    interval: float
    answer_timeout: float


class Rivals:
    """Compares the source that is followed with the others, one at a time.

    A rival has to show the very block that would come next: it must follow the one that was read
    last, and the orderers must have signed it. So what a rival says is believed only where the
    source that is followed could, and should, have said it too.

    Args:
        config: what to compare.
        dial: opens a channel to an address.
        chain: the channel as far as it was read.
        trust: judges whether the orderers signed a block.

    Attributes:
        ahead: the address for which the last source was left; empty if it was for none.
    """

    def __init__(self, config: RivalsConfig, dial: Dial, chain: Chain, trust: Trust) -> None:
        self.ahead = ""
        self._config = config
        self._dial = dial
        self._chain = chain
        self._trust = trust
        self._turns = deque(config.addresses)
        self._causes: dict[str, str] = {}  # by address, why it could not be compared last

    @asynccontextmanager
    async def compared(self, stream: SourceStream, followed: str) -> AsyncIterator[None]:
        """Compare a source for as long as it is followed.

        Args:
            stream: what is read of it; ended with a SourceRefused whose cause is `silent` if it
                keeps back what a rival has.
            followed: its address.
        """
        self.ahead = ""
        if not self._config.interval or len(self._turns) == 1:
            yield
            return
        comparing = asyncio.create_task(self._compare(stream, followed), name="rivals")
        try:
            yield
        finally:
            comparing.cancel()
            await asyncio.wait([comparing])

    async def _compare(self, stream: SourceStream, followed: str) -> None:
        config = self._config
        while True:
            last = self._chain.last
            # Spread, so that not all channels of all hubs ask at the same moment.
            await asyncio.sleep(config.interval * random.uniform(*_SPREAD))  # noqa: S311
            if last is None or not self._waits(stream, last):
                continue
            rival = self._next(followed)
            if not await self._has_more(rival, last):
                continue
            await asyncio.sleep(config.answer_timeout)
            if self._waits(stream, last):
                self.ahead = rival
                stream.end(
                    SourceRefused(
                        "silent",
                        f"the source has sent nothing after block {last.number}, and {rival} has "
                        f"had block {last.number + 1} for the {config.answer_timeout:g} s of "
                        f"{config.key}.answerTimeout; check that the source gets blocks from its "
                        "orderers",
                    )
                )
                return

    def _waits(self, stream: SourceStream, last: Position) -> bool:
        """Whether nothing has come since a block was the last, and it is not the hub that takes
        nothing."""
        return self._chain.last is last and stream.awaited

    def _next(self, followed: str) -> str:
        """Whose turn it is."""
        self._turns.rotate(-1)
        if self._turns[-1] == followed:
            self._turns.rotate(-1)
        return self._turns[-1]

    async def _has_more(self, rival: str, last: Position) -> bool:
        """Whether a rival shows the block that comes after the last one."""
        config = self._config
        try:
            async with (
                asyncio.timeout(config.answer_timeout),
                SourceStream(self._dial, config.kind, rival, config.channel, config.key) as stream,
            ):
                # Asked for a block that is not there yet, a peer would log a warning each time.
                block = await stream.one(seek_request.NEWEST)
                if block.header.number > last.number + 1:
                    block = await stream.one(last.number + 1)
            if has_more := block.header.number > last.number:
                self._chain.check(block, last)
                self._trust.check(block)
                if config.kind == "peer":
                    check_codes(block)
        except SourceRefused as error:
            self._failed(rival, error.cause, str(error))
        except TimeoutError:
            sentence = f"no answer for the {config.answer_timeout:g} s of {config.key}"
            self._failed(rival, "timeout", f"{sentence}.answerTimeout")
        except CredentialsUnusable as error:
            self._failed(rival, "credentials", str(error))
        except grpc.aio.AioRpcError as error:
            self._failed(rival, error.code().name, str(error.details()))
        except BlockTooLarge as error:
            self._failed(rival, "block_too_large", str(error))
        except ChainError as error:
            self._failed(rival, error.cause, str(error))
        except Exception as error:
            log.exception("fault while comparing sources")
            self._failed(rival, "fault", f"{type(error).__name__}: {error}")
        else:
            self._causes.pop(rival, None)
            return has_more
        return False

    def _failed(self, rival: str, cause: str, reason: str) -> None:
        # No reason to leave the one that is followed. The same failure again is no news.
        level = log.debug if cause == self._causes.get(rival) else log.warning
        level(
            "source not compared",
            cause=cause,
            address=rival,
            channel=self._config.channel,
            reason=reason,
        )
        self._causes[rival] = cause
