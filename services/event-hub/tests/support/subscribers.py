"""A channel whose blocks a test makes, Subscribe in front of it, and subscribers over real gRPC."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
import grpc.aio
from deliver_peer import CHANNEL, Ledger, Transaction
from eventhouse import dialled, end_of, listening, next_message
from organisation import Organisation

from event_hub.channels.block import ChannelBlock
from event_hub.channels.channel import Channel
from event_hub.channels.recent import RecentBlocks
from event_hub.consumers import Consumers
from event_hub.outbox import OutboxConfig
from event_hub.subscriptions.head import Head
from event_hub.subscriptions.service import METHOD, Subscribe
from selvedge_common.comm import (
    GRPCServer,
    ServerConfig,
    StreamConfig,
)
from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil.blocks import parse_block
from selvedge_common.protoutil.config_block import Batch, ChannelConfig, genesis_block, open_config
from selvedge_common.protoutil.errors import BlockUnavailable
from selvedge_common.protoutil.responses import block_response
from selvedge_common.protoutil.wire import length_delimited
from selvedge_common.signed_requests import sign_request
from selvedge_protos.common import common_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import Filter, Position


def configuration(*organisations: Organisation) -> ChannelConfig:
    """The configuration of the channel, which members of these organisations may read."""
    batch = Batch(500, 1 << 20, 1 << 20, "2s")
    configs = [organisation.msp.config() for organisation in organisations]
    return open_config(genesis_block(CHANNEL, configs, [], batch))


class Subscriber:
    """A client that subscribes and hears notices.

    Attributes:
        call: the call; `hear` reads from it.
    """

    def __init__(self, opened: grpc.aio.Channel, envelope: common_pb2.Envelope | bytes) -> None:
        self._channel = opened
        subscribe = opened.unary_stream(METHOD, _bytes, None)
        self.call: Any = subscribe(envelope)

    async def hear(self) -> event_hub_pb2.Notice:
        return event_hub_pb2.Notice.FromString(await next_message(self.call))

    async def begin(self) -> Position | None:
        """Where it begins, as the first notice says."""
        first = await self.hear()
        assert not first.HasField("transaction")
        return first.position if first.HasField("position") else None

    async def events(self, number: int) -> list[str]:
        """The transaction ids of so many notices; those without a transaction are passed over."""
        heard: list[str] = []
        while len(heard) < number:
            notice = await self.hear()
            if notice.HasField("transaction"):
                heard.append(notice.transaction.txid)
        return heard

    async def until(self, position: Position) -> list[event_hub_pb2.Notice]:
        """The notices up to the one that says the position."""
        heard = [await self.hear()]
        while heard[-1].position != position:
            heard.append(await self.hear())
        return heard

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """The status by which the hub ends the stream; what comes before it is skipped."""
        return await end_of(self.call)

    async def leave(self) -> None:
        await self._channel.close(None)


@dataclass
class Stage:
    """The channel and who subscribes to it."""

    organisation: Organisation
    ledger: Ledger
    channel: Channel
    consumers: Consumers
    server: GRPCServer
    head: Head
    unavailable: set[int] = field(default_factory=set)
    subscribers: list[Subscriber] = field(default_factory=list)

    async def commit(self, *committed: Transaction) -> Position:
        """A further block, told at once; gives the position after it."""
        await self.ledger.commit(*committed)
        block = self.make(self.ledger.height - 1)
        self.channel.begin(block)
        return Position(block=block.number, block_hash=block.hash)

    def make(self, number: int) -> ChannelBlock:
        data = self.ledger.held(number)
        return ChannelBlock(CHANNEL, block_response(data), parse_block(data))

    async def fetch(self, number: int) -> ChannelBlock:
        """As the source would give it."""
        await asyncio.sleep(0)
        if number in self.unavailable:
            raise BlockUnavailable(common_pb2.SERVICE_UNAVAILABLE, f"block {number} is not there")
        return self.make(number)

    def subscribe(
        self,
        *,
        by: SigningIdentity | None = None,
        start: int | Position | None = None,
        wanted: Filter | None = None,
        payload: bool = False,
        on: str = CHANNEL,
        options: Sequence[tuple[str, int]] = (),
        request: bytes | None = None,
        bound: bool = True,
        padding: int = 0,
    ) -> Subscriber:
        """Subscribe, or send the raw request. With `padding` it has so many useless bytes more."""
        signer = by or self.organisation.identity("user")
        asked = event_hub_pb2.SubscribeRequest(channel=on, filter=wanted, payload=payload)
        if padding:
            useless = length_delimited(1000, bytes(padding))
            asked.MergeFromString(useless)
        if isinstance(start, int):
            asked.block = start
        elif start is not None:
            asked.after.CopyFrom(start)
        opened, digest = dialled(self.organisation, self.server.address, *options)
        signed = sign_request(asked, signer, tls_cert_hash=digest if bound else b"")
        subscriber = Subscriber(opened, signed if request is None else request)
        self.subscribers.append(subscriber)
        return subscriber


@asynccontextmanager
async def staged(
    organisation: Organisation,
    transport: Literal["native", "grpcio"] = "native",
    *,
    recent_bytes: int = 1 << 26,
    max_consumers: int = 100,
    max_values: int = 10,
    max_bytes: int = 10_000,
    max_send_bytes: int = 1 << 26,
    total_bytes: int = 1 << 26,
    marker_seconds: float = 3600,
    validated: bool = True,
    client_certificates: bool = True,
) -> AsyncIterator[Stage]:
    """Serve an empty channel."""
    server = GRPCServer(
        "127.0.0.1:0",
        ServerConfig(
            transport=transport,
            secure=listening(organisation, client_certificates=client_certificates),
            max_send_bytes=max_send_bytes,
            stream=StreamConfig(low_mark=16 * 1024, high_mark=64 * 1024),
        ),
    )
    consumers = Consumers(max_consumers, OutboxConfig(1, 1, 1), 60.0, total_bytes)
    stage: Stage
    served = Channel(
        CHANNEL,
        validated=validated,
        height=0,
        recent=RecentBlocks(recent_bytes),
        fetch=lambda number: stage.fetch(number),
    )
    served.config = configuration(organisation)
    subscribe = Subscribe(
        {CHANNEL: served},
        consumers,
        max_values=max_values,
        max_bytes=max_bytes,
        marker_seconds=marker_seconds,
    )
    head = subscribe._heads[CHANNEL]
    stage = Stage(organisation, Ledger(organisation), served, consumers, server, head)
    server.add_message_stream(METHOD, subscribe)
    await server.start()
    watch = asyncio.create_task(consumers.watch())
    try:
        yield stage
    finally:
        for subscriber in stage.subscribers:
            await subscriber.leave()
        watch.cancel()
        await server.stop(0)


def _bytes(request: common_pb2.Envelope | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()
