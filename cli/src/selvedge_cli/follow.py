"""A channel's events, across lost connections and from run to run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum

from selvedge_cli import deliver, records
from selvedge_cli.connection import Connection
from selvedge_cli.deliver import DeliverRefused, Position
from selvedge_cli.errors import CommandError, NotReachable
from selvedge_cli.records import Record
from selvedge_protos.common import common_pb2

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts to reach a peer that is away."""


class Kind(Enum):
    """What to tell of each block."""

    BLOCK = "block"
    FILTERED = "filtered"
    CHAINCODE = "chaincode"
    REJECTION = "rejection"


@dataclass(frozen=True)
class Wanted:
    """Which events.

    Attributes:
        kind: of what sort.
        chaincode, name: only those of this chaincode, and of this name; empty means any.
    """

    kind: Kind
    chaincode: str = ""
    name: str = ""

    def of(self, block: common_pb2.Block) -> Iterable[Record]:
        """Those in a whole block."""
        if self.kind is Kind.BLOCK:
            return [records.block_record(block)]
        if self.kind is Kind.REJECTION:
            return filter(self.matches, records.rejection_records(block))
        return filter(self.matches, records.chaincode_records(block))

    def matches(self, record: Record) -> bool:
        """Whether an event is of the chaincode and of the name."""
        return self.chaincode in ("", record.get("chaincode")) and (
            self.name in ("", record.get("name"))
        )


@dataclass(frozen=True)
class Told:
    """A block, and what it holds of what was wanted."""

    number: int
    records: Iterable[Record]


async def follow(
    connection: Connection,
    wanted: Wanted,
    start: Position,
    stop: Position,
    *,
    on_pause: Callable[[CommandError], None],
) -> AsyncGenerator[Told, None]:
    """Every block from `start` to `stop` once, in order.

    When the peer goes away it is asked again for what is missing, until it is back.

    Args:
        stop: NEWEST as of now, a number, or FOREVER.
        on_pause: told once whenever the peer is away.

    Raises:
        CommandError: the peer refuses: the range does not exist, or the user may not read.
    """
    position, pause = start, FIRST_PAUSE
    while True:
        try:
            async with aclosing(_tell(connection, wanted, position, stop)) as told:
                async for block in told:
                    yield block
                    position, pause = block.number + 1, FIRST_PAUSE
            if stop == deliver.NEWEST or (isinstance(stop, int) and position == stop + 1):
                return
        except DeliverRefused as refused:
            if refused.status == common_pb2.NOT_FOUND and stop == deliver.NEWEST:
                return
            if refused.status != common_pb2.SERVICE_UNAVAILABLE:
                raise
        except NotReachable as away:
            if pause == FIRST_PAUSE:
                on_pause(away)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


async def _tell(
    connection: Connection, wanted: Wanted, start: Position, stop: Position
) -> AsyncGenerator[Told, None]:
    wait = stop != deliver.NEWEST
    if wanted.kind is Kind.FILTERED:
        async with aclosing(
            deliver.filtered_blocks(connection, start, stop, wait=wait)
        ) as filtered_blocks:
            async for filtered in filtered_blocks:
                yield Told(filtered.number, [records.filtered_record(filtered)])
    else:
        async with aclosing(deliver.blocks(connection, start, stop, wait=wait)) as blocks:
            async for block in blocks:
                yield Told(block.header.number, wanted.of(block))
