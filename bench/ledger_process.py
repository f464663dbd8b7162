"""A ledger in a process of its own, bench/ledger_server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory

from bench.comparison import Tally
from bench.ledger_server import Timed
from bench.process import Program, module
from bench.site import Site

_PATIENCE = 300.0
"""Seconds for the longest of its commands."""


class LedgerProcess:
    """A running ledger_server.

    Attributes:
        pid: its process.
        address: of its Deliver.
    """

    def __init__(self, running: Program, address: str) -> None:
        self._running = running
        self.pid = running.pid
        self.address = address

    async def do(self, *words: object) -> Timed:
        """Have it do one of its commands.

        Raises:
            BenchError: it gave up.
        """
        return Timed(**json.loads(await self._running.ask(*words, patience=_PATIENCE)))

    async def in_turns(self, rounds: int, *commands: Sequence[object]) -> list[Tally]:
        """Have it do commands one after the other, and so many times. Raises as `do`."""
        tallies = [Tally() for _ in commands]
        for _ in range(rounds):
            for tally, command in zip(tallies, commands, strict=True):
                timed = await self.do(*command)
                tally.add(timed.count, timed.seconds, timed.cpu)
        return tallies


@asynccontextmanager
async def ledger_process(site: Site) -> AsyncIterator[LedgerProcess]:
    """One with an empty ledger, which is gone afterwards."""
    with TemporaryDirectory(dir=site.house.home.parent) as folder:
        async with module("ledger_server", site.house.home, folder) as running:
            yield LedgerProcess(running, await running.line())
