"""A channel's events, across lost connections and from run to run."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum

from selvedge_cli import deliver, records
from selvedge_cli.connection import Connection
from selvedge_cli.deliver import Chain, DeliverRefused, look_at
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

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint of runs that print just these."""
        if not (self.chaincode or self.name):
            return self.kind.value
        filters = json.dumps([self.chaincode, self.name]).encode()
        return f"{self.kind.value}-{hashlib.sha256(filters).hexdigest()[:16]}"

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


class _Patience:
    """Waits for a peer that is away, a little longer each time."""

    def __init__(self, on_pause: Callable[[CommandError], None]) -> None:
        self._on_pause = on_pause
        self._pause = FIRST_PAUSE

    async def wait(self, away: CommandError | None = None) -> None:
        """Wait once; that it is `away` is told the first time."""
        if away is not None and self._pause == FIRST_PAUSE:
            self._on_pause(away)
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def renew(self) -> None:
        """It is back."""
        self._pause = FIRST_PAUSE


async def wait_for_chain(
    connection: Connection, *, on_pause: Callable[[CommandError], None]
) -> Chain:
    """What `look_at` gives, once the peer is there.

    Args:
        on_pause: told once, when the peer is away.

    Raises:
        CommandError: the peer refuses, or is not one of ours.
    """
    patience = _Patience(on_pause)
    while True:
        try:
            return await look_at(connection)
        except NotReachable as away:
            await patience.wait(away)


async def follow(
    connection: Connection,
    wanted: Wanted,
    chain: Chain,
    start: int,
    stop: int,
    *,
    on_pause: Callable[[CommandError], None],
) -> AsyncGenerator[Told, None]:
    """Every block from `start` to `stop` once, in order.

    When the peer goes away it is asked again for what is missing, until it is back.

    Args:
        chain: what the peer had a moment ago.
        start, stop: numbers of blocks, both included; the last may be FOREVER.
        on_pause: told once whenever the peer is away.

    Raises:
        CommandError: the peer refuses: the user may not read, or it came back with another ledger.
    """
    position, patience, known = start, _Patience(on_pause), True
    while True:
        away = None
        try:
            if not known:
                await _require_same(connection, chain)
            async with aclosing(_tell(connection, wanted, position, stop)) as told:
                async for block in told:
                    yield block
                    position = block.number + 1
                    patience.renew()
            if position - 1 == stop:
                return
        except DeliverRefused as refused:
            if refused.status != common_pb2.SERVICE_UNAVAILABLE:
                raise
        except NotReachable as failure:
            away = failure
        known = False
        await patience.wait(away)


async def _require_same(connection: Connection, chain: Chain) -> None:
    if (await look_at(connection)).ledger != chain.ledger:
        raise CommandError(
            f"the peer at {connection.settings.addresses.peer} came back with another ledger: run "
            "this again to begin at the oldest block of that one"
        )


async def _tell(
    connection: Connection, wanted: Wanted, start: int, stop: int
) -> AsyncGenerator[Told, None]:
    if wanted.kind is Kind.FILTERED:
        async with aclosing(
            deliver.filtered_blocks(connection, start, stop, wait=True)
        ) as filtered_blocks:
            async for filtered in filtered_blocks:
                yield Told(filtered.number, [records.filtered_record(filtered)])
    else:
        async with aclosing(deliver.blocks(connection, start, stop, wait=True)) as blocks:
            async for block in blocks:
                yield Told(block.header.number, wanted.of(block))
