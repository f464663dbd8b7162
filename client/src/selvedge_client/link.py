"""Connections to servers of which any will do: one is used until it fails, then the next."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import grpc.aio

from selvedge_client.cancellation import Cancellations
from selvedge_client.errors import (
    ClientError,
    NoSuchBlock,
    NoSuchChannel,
    NotReachable,
    Refused,
)
from selvedge_client.user import User
from selvedge_common import comm

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two rounds in which no server could be reached; they double, with jitter."""

CONNECT_SECONDS = 5.0
"""In which a server must have made a connection, or the next one is tried. grpc's own is 20."""

PATIENCE = 5.0
"""Seconds in which servers that are there may become able to answer one question."""

log = logging.getLogger("selvedge_client")

T = TypeVar("T")


@dataclass(frozen=True)
class Link:
    """A connection to one server.

    Attributes:
        address: the server, as host:port.
        channel: the connection.
        user: who uses it.
    """

    address: str
    channel: grpc.aio.Channel
    user: User


class Links:
    """Connections to the servers of a client.

    Args:
        addresses: the servers.
        user: gives who signs and dials, for each connection anew.
        on_pause: told when none can be reached, the first time of a row.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        user: Callable[[], User],
        on_pause: Callable[[NotReachable], None] | None,
    ) -> None:
        self._addresses = addresses
        self._user = user
        self._on_pause = on_pause or _log_pause
        self._current = 0

    async def first(self, ask: Callable[[Link], Awaitable[T]]) -> T:
        """What the first server answers that can; one that has just begun is given a moment.

        Raises:
            NotReachable: there is none.
            NoSuchChannel, NoSuchBlock: none of those that are there has it.
        """
        end = time.monotonic() + PATIENCE
        while True:
            row = _Row()
            for _ in self._addresses:
                cancellations = Cancellations()
                try:
                    async with self._open() as link:
                        return await ask(link)
                except _TRY_ANOTHER as failure:
                    cancellations.raise_if_lost()
                    row.add(failure)
                    self._current += 1
            if row.away is None or not row.away.answered or time.monotonic() >= end:
                raise row.end()
            await asyncio.sleep(FIRST_PAUSE)

    async def follow(
        self, attempt: Callable[[Link], AsyncGenerator[T, None]]
    ) -> AsyncGenerator[T, None]:
        """What attempts give, one after the other, until one comes to its end.

        Args:
            attempt: goes on where the former one stopped; raises NotReachable for another attempt.

        Raises:
            NoSuchChannel, NoSuchBlock: none of the servers has it.
        """
        row, paused, pause = _Row(), False, FIRST_PAUSE
        while True:
            began: float | None = None
            cancellations = Cancellations()
            try:
                async with self._open() as link, aclosing(attempt(link)) as items:
                    async for item in items:
                        began = began or time.monotonic()
                        yield item
                return
            except _TRY_ANOTHER as failure:
                cancellations.raise_if_lost()
                # One that ends as soon as it has begun is as good as none, or servers that all do
                # that would be called without a pause.
                if began is not None and time.monotonic() - began > pause:
                    row, paused, pause = _Row(), False, FIRST_PAUSE
                self._current += 1
                row.add(failure)
            if row.failures < len(self._addresses):
                continue
            if row.away is None:
                raise row.end()
            if not paused:
                self._on_pause(row.away)
            row, paused = _Row(), True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, LONGEST_PAUSE)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Link]:
        address = self._addresses[self._current % len(self._addresses)]
        user = self._user()
        channel = comm.channel(
            address,
            root_cas=user.tls_root or None,
            certificate=user.tls_certificate or None,
            key=user.tls_key or None,
            # The time that an attempt to connect has at least, in spite of its name.
            options=[("grpc.min_reconnect_backoff_ms", int(CONNECT_SECONDS * 1000))],
        )
        try:
            yield Link(address, channel, user)
        finally:
            await channel.close(None)


# What another server may have that one has not.
_TRY_ANOTHER = (NotReachable, NoSuchChannel, NoSuchBlock)


@dataclass
class _Row:
    """What became of the servers, tried one after the other.

    Attributes:
        failures: how many were tried in vain.
        away: the last one of those that are not there, or cannot answer.
        lacking: the last one of those that have not what is asked for.
    """

    failures: int = 0
    away: NotReachable | None = None
    lacking: Refused | None = None

    def add(self, failure: NotReachable | Refused) -> None:
        """Take note of a server."""
        self.failures += 1
        if isinstance(failure, NotReachable):
            self.away = failure
        else:
            self.lacking = failure

    def end(self) -> ClientError:
        """What to tell of it, where it was all in vain."""
        failure = self.lacking or self.away
        assert failure is not None
        return failure


def _log_pause(away: NotReachable) -> None:
    log.warning("%s; waiting for it", away)
