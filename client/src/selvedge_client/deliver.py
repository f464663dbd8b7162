"""Blocks, by the Deliver service of peers and event hubs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import grpc
import grpc.aio

from selvedge_client.errors import (
    BlockUnreadable,
    NoSuchBlock,
    NoSuchChannel,
    NotReachable,
    Refused,
    call_failed,
)
from selvedge_client.link import Link
from selvedge_common.protoutil.blocks import header_hash
from selvedge_common.protoutil.seek_request import (
    FOREVER,
    NEWEST,
    OLDEST,
    Position,
    seek_envelope,
)
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.peer import events_pb2, events_pb2_grpc

__all__ = [
    "FOREVER",
    "NEWEST",
    "OLDEST",
    "Ledger",
    "Position",
    "block",
    "deliver",
    "look_at",
    "number_of",
    "one",
]


@dataclass(frozen=True)
class Ledger:
    """Which ledger a channel has, and how far it is.

    Attributes:
        id: hash of block 0, hexadecimal: no two ledgers begin with the same one.
        newest: number of the newest block.
        newest_hash: its hash, hexadecimal.
    """

    id: str
    newest: int
    newest_hash: str


async def deliver(
    link: Link,
    channel: str,
    start: Position,
    stop: Position,
    *,
    filtered: bool = False,
    wait: bool = True,
) -> AsyncGenerator[events_pb2.DeliverResponse, None]:
    """The blocks of a channel from `start` to `stop`, both included.

    Args:
        start, stop: a number, OLDEST or NEWEST; the last may be FOREVER.
        filtered: as filtered blocks.
        wait: wait for blocks that are not there yet; otherwise they end the iteration.

    Raises:
        NoSuchChannel: the server has no such channel.
        NoSuchBlock: it has, and `start` is too far ahead.
        BlockUnreadable: the block that comes next is damaged there.
        Refused: the right to read it is not there.
        NotReachable, NotTrusted: as for all calls; the former too where the right to read ends
            after a block, since a renewed certificate may have it.
    """
    behavior = ab_pb2.SeekInfo.BLOCK_UNTIL_READY if wait else ab_pb2.SeekInfo.FAIL_IF_NOT_READY
    user = link.user
    request = seek_envelope(channel, start, stop, behavior, user.signer, user.tls_hash)
    service = events_pb2_grpc.DeliverStub(link.channel)
    call = (service.DeliverFiltered if filtered else service.Deliver)(iter([request]))
    stood = False
    newest: events_pb2.DeliverResponse | None = None
    try:
        async for response in call:
            stood = True
            if response.WhichOneof("Type") != "status":
                newest = response
                yield response
            elif response.status == common_pb2.SUCCESS:
                return
            elif newest is not None and response.status == common_pb2.FORBIDDEN:
                raise NotReachable(
                    link.address,
                    f"FORBIDDEN to go on with blocks of {channel}: the certificate has expired, or "
                    "may read it no more",
                    answered=True,
                )
            else:
                due = start if newest is None else number_of(newest) + 1
                raise await _refused(link, channel, due, response.status)
    except grpc.aio.AioRpcError as error:
        raise call_failed(error, link.address, stood=stood) from error
    finally:
        call.cancel()
    raise NotReachable(link.address, "it ended the stream of blocks", answered=True)


async def look_at(link: Link, channel: str) -> Ledger:
    """Which ledger the channel has. Raises as `deliver` does."""
    oldest, newest = [await block(link, channel, place) for place in (OLDEST, NEWEST)]
    return Ledger(
        header_hash(oldest.header).hex(), newest.header.number, header_hash(newest.header).hex()
    )


async def block(link: Link, channel: str, place: Position) -> common_pb2.Block:
    """One whole block. Raises as `deliver` does."""
    return (await one(link, channel, place)).block


async def one(
    link: Link, channel: str, place: Position, *, filtered: bool = False
) -> events_pb2.DeliverResponse:
    """The response with one block. Raises as `deliver` does."""
    responses = deliver(link, channel, place, place, filtered=filtered, wait=False)
    async with aclosing(responses) as found:
        response = await anext(found, None)
    if response is None:
        why = f"SUCCESS to a request for a block of {channel}, and no block"
        raise NotReachable(link.address, why, answered=True)
    return response


async def _refused(
    link: Link, channel: str, due: Position, status: common_pb2.Status.ValueType
) -> NotReachable | Refused:
    """What a status means that came instead of the block that was `due`."""
    name = common_pb2.Status.Name(status) if status in common_pb2.Status.values() else str(status)
    if status == common_pb2.SERVICE_UNAVAILABLE:
        return NotReachable(link.address, f"{name} to a request for blocks", answered=True)
    if status == common_pb2.INTERNAL_SERVER_ERROR:
        return BlockUnreadable(link.address, name, channel, due if isinstance(due, int) else None)
    if status != common_pb2.NOT_FOUND:
        return Refused(link.address, name, f"the request for blocks of {channel}")
    if isinstance(due, int):
        # Fabric says the same of a channel that it does not have. Raises that if it is so.
        newest = (await block(link, channel, NEWEST)).header.number
        return NoSuchBlock(
            link.address,
            name,
            f"there is no block {due} of {channel} yet, the newest is {newest}",
        )
    return NoSuchChannel(link.address, name, f"there is no channel {channel}")


def number_of(response: events_pb2.DeliverResponse) -> int:
    """The number of the block, or filtered block, in a response."""
    if response.HasField("filtered_block"):
        return response.filtered_block.number
    return response.block.header.number
