"""Consumers of an event hub that go on after whatever happens to them, each by its service's rule.

- Chat is called with the first block that was not told to its end, as the start block. What was
  heard of that one comes again, and is dropped.
- Deliver is asked for the block after the last one.
- Subscribe is asked for what comes after the last position; nothing comes again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import grpc
import grpc.aio

from bench.client import CHANNEL, NAME
from bench.drill import story
from bench.drill.account import Account, Untrue
from bench.drill.story import Chapters, Story
from selvedge_client import Client, ClientError, Position, User
from selvedge_common import comm
from selvedge_common.protoutil.seek_request import FOREVER, seek_envelope
from selvedge_common.protoutil.wire import timestamp_of
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.peer import events_pb2

_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
_PAUSE = 0.1
"""Seconds until a consumer that lost its stream calls again."""
_LEAVES = 0.001
"""How likely it is after each word that a consumer goes, and comes back at once."""
_NARROW = (("grpc.http2.lookahead_bytes", 64 * 1024), ("grpc.http2.bdp_probe", 0))
"""Who takes its time has little under way: the rest waits in the hub."""
_PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)
"""With what a stream may end when something fails. Anything else is a refusal."""
_FAULT = "HUB_FAULT"
_ASK_AGAIN = (common_pb2.SERVICE_UNAVAILABLE, common_pb2.NOT_FOUND)
"""What Deliver answers when it cannot go on just now. As a peer, a hub has not found a block beyond
the next one, and one that is behind says so to whoever heard more elsewhere."""


class Consumer(ABC):
    """One that follows the channel from a block on.

    Args:
        account: what it has to hear.
        user: who signs and dials.
        addresses: of the hubs that it uses, in turn.
        chosen: when it leaves, and how long it takes.
        pace: seconds that it takes for a word, at most.
    """

    def __init__(
        self,
        account: Account,
        user: User,
        addresses: Sequence[str],
        chosen: random.Random,
        pace: float,
    ) -> None:
        self.account = account
        self._addresses = addresses
        self._user = user
        self._chosen = chosen
        self._pace = pace

    @abstractmethod
    async def follow(self) -> None:
        """Hear everything, for ever. Raises Untrue."""

    async def take(self, word: str) -> bool:
        """Hear a word, in the time that it takes; whether to stay afterwards. Raises Untrue."""
        self.account.hear(word)
        if self._pace:
            await asyncio.sleep(self._chosen.uniform(0, self._pace))
        return self._chosen.random() >= _LEAVES

    def refused(self, why: object) -> Untrue:
        """What it means that a stream ended as it should not, whatever happens to the hub."""
        return Untrue(f"{self.account.who} in block {self.account.block}: the stream ended: {why}")


class Caller(Consumer):
    """One that calls the hub itself."""

    async def follow(self) -> None:
        """Call one hub after the other."""
        for address in itertools.cycle(self._addresses):
            channel = comm.channel(
                address,
                root_cas=self._user.tls_root,
                certificate=self._user.tls_certificate,
                key=self._user.tls_key,
                options=_NARROW if self._pace else (),
            )
            async with channel:
                try:
                    await self.listen(channel)
                except grpc.aio.AioRpcError as error:
                    details = error.details() or ""
                    if error.code() not in _PASSING or details.startswith(_FAULT):
                        raise self.refused(f"{error.code().name}: {details}") from error
            await asyncio.sleep(_PAUSE)

    @abstractmethod
    async def listen(self, channel: grpc.aio.Channel) -> None:
        """Call, and hear what comes. Raises Untrue, AioRpcError."""


class Chatter(Caller):
    """A client of Events/Chat that is registered for some types of events."""

    def __init__(self, *rest: Any, types: Sequence[int]) -> None:
        super().__init__(*rest)
        self._types = types

    async def listen(self, channel: grpc.aio.Channel) -> None:
        """Register, and hear events from the first block on that it does not know all of."""
        again = deque(self.account.unfinished)
        start = f"{CHANNEL}={self.account.block}"
        request = registration(self._user, self._interests())
        metadata = ("selvedge-start-block", start)
        told = answers(channel, "/protos.Events/Chat", request, metadata)
        async with aclosing(told) as events:
            echo = events_pb2.Event.FromString(await anext(events, b""))
            if not echo.HasField("register"):
                raise self.refused(f"no echo, but {echo}")
            async for answer in events:
                word = _word(events_pb2.Event.FromString(answer))
                if again:
                    if word != (due := again.popleft()):
                        raise self.refused(f"told anew: {word}; told before: {due}")
                elif not await self.take(word):
                    return
        raise self.refused("OK")

    def _interests(self) -> list[events_pb2.Interest]:
        interests = [
            events_pb2.Interest(event_type=events_pb2.EventType.ValueType(kind))
            for kind in self._types
        ]
        for interest in interests:
            if interest.event_type == events_pb2.CHAINCODE:
                interest.chaincode_reg_info.chaincode_id = NAME
        return interests


class Reader(Caller):
    """A client of Deliver."""

    async def listen(self, channel: grpc.aio.Channel) -> None:
        """Ask for the blocks from the next one on."""
        request = seek_envelope(
            *(CHANNEL, self.account.block, FOREVER, ab_pb2.SeekInfo.BLOCK_UNTIL_READY),
            *(self._user.signer, self._user.tls_hash),
        ).SerializeToString()
        told = answers(channel, "/protos.Deliver/Deliver", request)
        async with aclosing(told) as responses:
            async for answer in responses:
                response = events_pb2.DeliverResponse.FromString(answer)
                if response.HasField("block"):
                    if not await self.take(story.delivered_block(answer)):
                        return
                elif response.status in _ASK_AGAIN:
                    return
                else:
                    raise self.refused(common_pb2.Status.Name(response.status))
        raise self.refused("OK, without a status of Deliver")


class Subscriber(Consumer):
    """A program that has our client library subscribe to everything."""

    async def follow(self) -> None:
        """Subscribe, and after leaving go on from the last position."""
        position: Position | int = self.account.block
        client = Client(self._addresses, lambda: self._user, on_pause=lambda _: None)
        while True:
            events = client.subscribe(
                CHANNEL, validity="any", transactions=True, payload=True, start=position
            )
            try:
                async with aclosing(events) as told:
                    async for event in told:
                        position = event.position
                        size = len(event.payload)
                        word = story.notice(
                            event.block, event.txid, event.code, event.name is not None, size
                        )
                        if not await self.take(word):
                            break
            except ClientError as error:
                raise self.refused(error) from error


async def answers(
    channel: Any, method: str, request: bytes, *metadata: tuple[str, str]
) -> AsyncGenerator[bytes, None]:
    """What comes in answer to one message on an open stream."""
    call = channel.stream_stream(method)(metadata=metadata)
    try:
        # Of a call that has ended by then, reading tells why.
        with suppress(asyncio.InvalidStateError):
            await call.write(request)
        while (answer := await call.read()) is not _EOF:
            yield answer
    finally:
        call.cancel()


def registration(user: User, interests: Sequence[events_pb2.Interest]) -> bytes:
    """What a client says on Chat to register for interests."""
    event = events_pb2.Event(
        register=events_pb2.Register(events=interests),
        creator=user.signer.serialized,
        timestamp=timestamp_of(),
        tls_cert_hash=user.tls_hash,
    ).SerializeToString()
    signature = user.signer.sign(event)
    return events_pb2.SignedEvent(eventBytes=event, signature=signature).SerializeToString()


def _word(told: events_pb2.Event) -> str:
    """What is heard when an event comes."""
    match told.WhichOneof("Event"):
        case "chaincode_event":
            return story.event(told.chaincode_event.tx_id)
        case "rejection":
            return story.rejection(told.rejection.error_msg.split()[1])
        case "filtered_block":
            transactions = told.filtered_block.filtered_transactions
            return story.filtered_block(
                told.filtered_block.number,
                [each.txid for each in transactions],
                [each.tx_validation_code for each in transactions],
            )
        case "block":
            return story.whole_block(told.block.header)
    return f"something else: {told}"


@dataclass(frozen=True)
class Kind:
    """A way to follow the channel.

    Args:
        chapters: gives what is heard by it.
        make: makes a consumer, of what Consumer takes.
    """

    chapters: Callable[[Story], Chapters]
    make: Callable[[Account, User, Sequence[str], random.Random, float], Consumer]


_FILTERED = (events_pb2.CHAINCODE, events_pb2.REJECTION, events_pb2.FILTEREDBLOCK)
_WHOLE = (events_pb2.CHAINCODE, events_pb2.BLOCK)
KINDS = {
    "Chat with filtered blocks": Kind(attrgetter("filtered"), partial(Chatter, types=_FILTERED)),
    "Chat with blocks": Kind(attrgetter("whole"), partial(Chatter, types=_WHOLE)),
    "Deliver": Kind(attrgetter("delivered"), Reader),
    "Subscribe": Kind(attrgetter("noticed"), Subscriber),
}
"""All that there are, by name."""
