"""The client: what happens on a channel, each thing once, whatever happens to the servers."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from selvedge_client import deliver
from selvedge_client.blocks import Blocks
from selvedge_client.checkpoint import Progress
from selvedge_client.deliver import Ledger
from selvedge_client.errors import CredentialsError, NotReachable
from selvedge_client.events import Event, Position
from selvedge_client.link import Link, Links
from selvedge_client.notices import notices
from selvedge_client.user import User, selvedge_home
from selvedge_common.protoutil.blocks import header_hash
from selvedge_common.protoutil.event_filter import ANY, INVALID, VALID, EventFilter
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import events_pb2
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import SubscribeRequest

DEFAULT_ADDRESS = "localhost:7053"

STORE_SECONDS = 1.0
"""A checkpoint moves over what there is nothing to tell of once in so long, in seconds."""

T = TypeVar("T")

_VALIDITY = {"valid": VALID, "invalid": INVALID, "any": ANY}


class Client:
    """Follows channels of event hubs, or of peers.

    A server that goes away is waited for, and of several the next one is used; what was told before
    is not repeated then, and nothing is left out. Whatever a client iterates over has a connection
    of its own, which ends with the iteration: leave one early by `contextlib.aclosing`.

    Args:
        addresses: the servers, as host:port, in the order of preference.
        user: gives who signs and dials. It is asked for each connection, so that renewed
            certificates are used.
        on_pause: told when no server can be reached, once until one is; without it that is logged.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        user: Callable[[], User],
        *,
        on_pause: Callable[[NotReachable], None] | None = None,
    ) -> None:
        given = [addresses] if isinstance(addresses, str) else list(addresses)
        if not given:
            raise ValueError("addresses is empty: give at least one server as host:port")
        self._links = Links(given, user, on_pause)

    @classmethod
    def of_home(cls, home: Path | str | None = None, user: str = "user1") -> Client:
        """A client of the event hub that `selvedge up` runs, or `docker compose up`.

        Args:
            home: the folder of certificates and local services; $SELVEDGE_HOME, or else .selvedge.
            user: whose certificates are used, of those in the home.

        Raises:
            CredentialsError: the home cannot be read.
        """
        folder = selvedge_home() if home is None else Path(home)
        own = folder / "crypto" / "users" / user
        return cls(_hub_of(folder), partial(User.read, own / "msp", own / "tls"))

    async def ledger(self, channel: str, *, wait: bool = False) -> Ledger:
        """Which ledger a channel has, and how far it is.

        Args:
            channel: the channel.
            wait: wait for a server; otherwise each is asked once.

        Raises:
            NoSuchChannel: it is not there.
            ClientError: no server can be reached, or one refuses.
        """
        return await self._ask(partial(deliver.look_at, channel=channel), wait=wait)

    async def recognises(self, channel: str, position: Position, *, wait: bool = False) -> bool:
        """Whether a position is of the ledger that the channel has now, and not of one that it had
        before. One without a hash may be of any.

        Args:
            channel: the channel.
            position: in a block that is there.
            wait: as for `ledger`.

        Raises:
            NoSuchChannel, NoSuchBlock: it is not there.
            ClientError: no server can be reached, or one refuses.
        """
        if not position.block_hash:
            return True
        ask = partial(deliver.block, channel=channel, place=position.block)
        block = await self._ask(ask, wait=wait)
        return header_hash(block.header) == position.block_hash

    async def subscribe(
        self,
        channel: str,
        *,
        chaincodes: Collection[str] = (),
        names: Collection[str] = (),
        creators: Collection[str] = (),
        validity: Literal["valid", "invalid", "any"] = "valid",
        transactions: bool = False,
        payload: bool = True,
        start: int | Position | None = None,
        until: int | None = None,
        checkpoint: Progress | None = None,
    ) -> AsyncGenerator[Event, None]:
        """What happens on a channel, in order. What is left empty does not restrict.

        Args:
            channel: the channel.
            chaincodes: those that transactions called.
            names: of chaincode events; a * in one stands for any characters.
            creators: MSP ids of who created the transactions.
            validity: "valid" transactions, "invalid" ones (all of them, with or without an event),
                or "any".
            transactions: valid transactions without a chaincode event, too.
            payload: whether events come with their payload.
            start: the block to begin with, 0 for the oldest, or a position to begin after; without
                it, what happens next.
            until: the last block; without it, it goes on for ever.
            checkpoint: a Checkpoint, or what looks like one: where to begin instead of `start`,
                once it has a position. `advance` it after an event is handled. By itself it moves
                over what there is nothing to tell of, unless an event before that is not handled.

        Raises:
            OtherLedger: the channel's ledger was replaced since the position was told.
            NoSuchChannel, NoSuchBlock: what is asked for is not there.
            NotTrusted, Refused, CredentialsError: the user may not, or cannot.
            CheckpointError: the checkpoint cannot be written.
        """
        request = SubscribeRequest(
            channel=channel,
            filter=EventFilter(
                frozenset(chaincodes),
                frozenset(names),
                frozenset(creators),
                _VALIDITY[validity],
                transactions,
            ).message(),
            payload=payload,
        )
        if checkpoint is not None and checkpoint.position is not None:
            start = checkpoint.position
        if isinstance(start, Position):
            request.after.CopyFrom(start.message())
        elif start is not None:
            request.block = start
        # The position up to which all was handled, where the checkpoint is at it.
        handled = checkpoint.position if checkpoint is not None else None
        stored = -math.inf
        told = self._links.follow(lambda link: notices(link, request))
        async with aclosing(told):
            async for notice in told:
                if not notice.HasField("position"):
                    continue
                position = Position.of(notice.position)
                if until is not None and position.block > until:
                    return
                ends = until is not None and position.next[0] > until
                if notice.HasField("transaction"):
                    handled = position
                    yield Event.of(channel, position, notice.transaction)
                elif checkpoint is not None and checkpoint.position == handled != position:
                    now = time.monotonic()
                    if ends or now - stored >= STORE_SECONDS:
                        await checkpoint.advance(position)
                        handled, stored = checkpoint.position, now
                request.after.CopyFrom(notice.position)
                if ends:
                    return

    async def blocks(
        self, channel: str, *, start: int | None = None, until: int | None = None
    ) -> AsyncGenerator[common_pb2.Block, None]:
        """Whole blocks.

        Args:
            channel: the channel.
            start: the first block; without it, the next one that is made.
            until: the last one; without it, it goes on for ever.

        Raises:
            ClientError: as for `subscribe`.
        """
        wanted = Blocks(channel, start, until, filtered=False)
        async with aclosing(self._links.follow(wanted.attempt)) as responses:
            async for response in responses:
                yield response.block

    async def filtered_blocks(
        self, channel: str, *, start: int | None = None, until: int | None = None
    ) -> AsyncGenerator[events_pb2.FilteredBlock, None]:
        """The same as `blocks`, with ids, codes and the names of events alone."""
        wanted = Blocks(channel, start, until, filtered=True)
        async with aclosing(self._links.follow(wanted.attempt)) as responses:
            async for response in responses:
                yield response.filtered_block

    async def _ask(self, ask: Callable[[Link], Awaitable[T]], *, wait: bool) -> T:
        if not wait:
            return await self._links.first(ask)

        async def attempt(link: Link) -> AsyncGenerator[T, None]:
            yield await ask(link)

        async with aclosing(self._links.follow(attempt)) as found:
            return await anext(found)


def _hub_of(home: Path) -> str:
    """Where the event hub of a home answers."""
    if address := os.environ.get("SELVEDGE_EVENTS"):
        return address
    file = home / "addresses.json"
    try:
        return str(json.loads(file.read_text())["events"])
    except FileNotFoundError:
        return DEFAULT_ADDRESS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CredentialsError(f"{file} cannot be read ({error}): delete it") from None
