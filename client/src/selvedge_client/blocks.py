"""Blocks of a channel, each once, across servers that come and go."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from selvedge_client import deliver
from selvedge_client.deliver import number_of
from selvedge_client.errors import NoSuchBlock, NotReachable, OtherLedger
from selvedge_client.link import Link
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import events_pb2

Responses = AsyncGenerator[events_pb2.DeliverResponse, None]


class Blocks:
    """A range of blocks, and how far it was told.

    Args:
        channel: the channel.
        start: the first block; None for the next one that is made.
        until: the last one; None for no end.
        filtered: as filtered blocks.
    """

    def __init__(
        self, channel: str, start: int | None, until: int | None, *, filtered: bool
    ) -> None:
        self._channel = channel
        self._start = start
        self._stop = deliver.FOREVER if until is None else until
        self._filtered = filtered
        self._last: events_pb2.DeliverResponse | None = None

    async def attempt(self, link: Link) -> Responses:
        """Go on where the former attempt stopped.

        Raises:
            NotReachable: to be tried again.
            OtherLedger: the ledger was replaced meanwhile.
            ClientError: the server refuses.
        """
        if self._last is not None:
            # The last one again: it shows whether this is still the same ledger.
            start = number_of(self._last)
        elif self._start is not None:
            start = self._start
        else:
            # The next one is what comes after this, wherever that is asked for.
            self._last = await deliver.one(
                link, self._channel, deliver.NEWEST, filtered=self._filtered
            )
            start = number_of(self._last)
        blocks = deliver.deliver(link, self._channel, start, self._stop, filtered=self._filtered)
        try:
            async with aclosing(blocks) as responses:
                async for response in responses:
                    if self._last is None or number_of(response) != number_of(self._last):
                        self._last = response
                        yield response
                    elif _identity(response) != _identity(self._last):
                        raise OtherLedger(
                            link.address,
                            "OTHER_LEDGER",
                            f"block {start} of {self._channel} is another one than before",
                        )
        except NoSuchBlock as missing:
            if self._last is None:
                raise
            raise NotReachable(link.address, missing.why, answered=True) from missing


def _identity(
    response: events_pb2.DeliverResponse,
) -> common_pb2.BlockHeader | events_pb2.FilteredBlock:
    """What two copies of a block have in common, whoever they came from."""
    if response.HasField("block"):
        return response.block.header
    return response.filtered_block
