"""Notices of a channel: from an event hub, or made here of a peer's blocks."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
import grpc.aio

from selvedge_client import deliver
from selvedge_client.errors import NoSuchBlock, NotReachable, OtherLedger, call_failed
from selvedge_client.link import Link
from selvedge_common.protoutil.block_events import transaction_notice
from selvedge_common.protoutil.blocks import header_hash
from selvedge_common.protoutil.event_filter import EventFilter, Kind
from selvedge_common.protoutil.metadata import validation_codes
from selvedge_common.signed_requests import sign_request
from selvedge_protos.common import common_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2, event_hub_pb2_grpc
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import Notice, SubscribeRequest

Notices = AsyncGenerator[Notice, None]


async def notices(link: Link, request: SubscribeRequest) -> Notices:
    """What a server tells: an event hub by Subscribe, one that has no such method by its blocks.

    Raises:
        NotReachable: to be tried again, from the last position.
        ClientError: it refuses, or is another one.
    """
    try:
        async with aclosing(_subscribe(link, request)) as told:
            async for notice in told:
                yield notice
    except _NoHub:
        pass
    else:
        return
    async with aclosing(_of_blocks(link, request)) as told:
        async for notice in told:
            yield notice


class _NoHub(Exception):
    """The server is no event hub, or an older one."""


async def _subscribe(link: Link, request: SubscribeRequest) -> Notices:
    envelope = sign_request(request, link.user.signer, tls_cert_hash=link.user.tls_hash)
    call = event_hub_pb2_grpc.EventHubStub(link.channel).Subscribe(envelope)
    stood = False
    try:
        async for notice in call:
            stood = True
            yield notice
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise _NoHub from error
        raise call_failed(error, link.address, stood=stood) from error
    finally:
        call.cancel()
    raise NotReachable(link.address, "it ended the stream of events", answered=True)


async def _of_blocks(link: Link, request: SubscribeRequest) -> Notices:
    wanted = EventFilter.read(request.filter, sys.maxsize, sys.maxsize)
    after = request.after if request.HasField("after") else None
    if request.WhichOneof("start") is None:
        newest = await deliver.block(link, request.channel, deliver.NEWEST)
        after = _position(newest, None)
    start = after.block if after is not None else request.block
    blocks = deliver.deliver(link, request.channel, start, deliver.FOREVER)
    try:
        async with aclosing(blocks) as responses:
            async for response in responses:
                block, first = response.block, 0
                if after is not None and block.header.number == after.block:
                    # It was told before, in part at least, and is looked at again all the same.
                    _compare(link, request.channel, after, block)
                    yield Notice(position=after)
                    if not after.HasField("transaction"):
                        continue
                    first = after.transaction + 1
                for notice in _told(block, first, wanted, payload=request.payload):
                    yield notice
    except NoSuchBlock as missing:
        if after is None:
            raise
        raise NotReachable(link.address, missing.why, answered=True) from missing


def _told(
    block: common_pb2.Block, first: int, wanted: EventFilter, *, payload: bool
) -> list[Notice]:
    told: list[Notice] = []
    envelopes = zip(block.data.data, validation_codes(block), strict=True)
    for index, (envelope, code) in enumerate(envelopes):
        transaction = transaction_notice(envelope, code)
        if index >= first and wanted.matches(Kind.of(transaction)):
            if not payload and transaction.HasField("event"):
                transaction.event.ClearField("payload")
            told.append(Notice(position=_position(block, index), transaction=transaction))
    if not told:
        return [Notice(position=_position(block, None))]
    told[-1].position.ClearField("transaction")
    return told


def _position(block: common_pb2.Block, transaction: int | None) -> event_hub_pb2.Position:
    return event_hub_pb2.Position(
        block=block.header.number,
        transaction=transaction,
        block_hash=header_hash(block.header),
    )


def _compare(
    link: Link, channel: str, after: event_hub_pb2.Position, block: common_pb2.Block
) -> None:
    if after.block_hash not in (b"", header_hash(block.header)):
        raise OtherLedger(
            link.address,
            "OTHER_LEDGER",
            f"block {after.block} of {channel} is another one than that of the position",
        )
