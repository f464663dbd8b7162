"""Blocks, by the Deliver service of peers and event hubs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import grpc
import grpc.aio

from selvedge_client.errors import NoSuchBlock, NoSuchChannel, NotReachable, Refused, call_failed
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

__all__ = ["FOREVER", "NEWEST", "OLDEST", "Ledger", "Position", "block", "deliver", "look_at"]


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
        Refused: the right to read it is not there.
        NotReachable, NotTrusted: as for all calls.
    """
    behavior = ab_pb2.SeekInfo.BLOCK_UNTIL_READY if wait else ab_pb2.SeekInfo.FAIL_IF_NOT_READY
    user = link.user
    request = seek_envelope(channel, start, stop, behavior, user.signer, user.tls_hash)
    service = events_pb2_grpc.DeliverStub(link.channel)
    call = (service.DeliverFiltered if filtered else service.Deliver)(iter([request]))
    stood = False
    try:
        async for response in call:
            stood = True
            if response.WhichOneof("Type") != "status":
                yield response
            elif response.status == common_pb2.SUCCESS:
                return
            else:
                raise await _refused(link, channel, start, response.status)
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
    async with aclosing(deliver(link, channel, place, place, wait=False)) as found:
        return (await anext(found)).block


async def _refused(
    link: Link, channel: str, start: Position, status: common_pb2.Status.ValueType
) -> NotReachable | Refused:
    name = common_pb2.Status.Name(status) if status in common_pb2.Status.values() else str(status)
    if status == common_pb2.SERVICE_UNAVAILABLE:
        return NotReachable(link.address, f"{name} to a request for blocks", answered=True)
    if status != common_pb2.NOT_FOUND:
        return Refused(link.address, name, f"the request for blocks of {channel}")
    if isinstance(start, int):
        # Fabric says the same of a channel that it does not have. Raises that if it is so.
        newest = (await block(link, channel, NEWEST)).header.number
        return NoSuchBlock(
            link.address,
            name,
            f"there is no block {start} of {channel} yet, the newest is {newest}",
        )
    return NoSuchChannel(link.address, name, f"there is no channel {channel}")
