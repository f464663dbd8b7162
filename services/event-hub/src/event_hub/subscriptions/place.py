"""Where a subscription begins: a block, a position that was told before, or what happens next."""

from dataclasses import dataclass

import grpc

from event_hub.channels.channel import Channel
from event_hub.session import CloseReason, StreamEnded
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2


@dataclass(frozen=True, slots=True)
class Place:
    """The first that is told.

    Attributes:
        block, transaction: numbers of the block, and of the transaction in it.
        position: what lies right before it; None before the first block.
    """

    block: int
    transaction: int
    position: event_hub_pb2.Position | None


async def find_place(request: event_hub_pb2.SubscribeRequest, channel: Channel) -> Place:
    """Find where a request begins.

    Raises:
        StreamEnded: OUT_OF_RANGE: the block to begin with is too far ahead, or its block has no
            such transaction. UNAVAILABLE, HUB_BEHIND: the hub has yet to read what the position is
            in. FAILED_PRECONDITION, OTHER_LEDGER: it is of another ledger.
        BlockUnavailable: no source gives a block that is needed.
    """
    if request.WhichOneof("start") == "after":
        return await _after(request.after, channel)
    height = channel.height
    block = request.block if request.WhichOneof("start") == "block" else height
    if block > height:
        raise StreamEnded(
            CloseReason.MESSAGE_REFUSED,
            grpc.StatusCode.OUT_OF_RANGE,
            f"there is no block {block} of {channel.name} yet, the next one is {height}: begin "
            "with that or an earlier one, or without a block for what happens next",
        )
    if block == 0:
        return Place(0, 0, None)
    if block < height:
        block_hash = (await channel.read(block)).message.header.previous_hash
    else:
        block_hash = (await channel.read(block - 1)).hash
    return Place(block, 0, event_hub_pb2.Position(block=block - 1, block_hash=block_hash))


async def _after(position: event_hub_pb2.Position, channel: Channel) -> Place:
    if position.block >= channel.height:
        raise StreamEnded(
            CloseReason.HUB_BEHIND,
            grpc.StatusCode.UNAVAILABLE,
            f"the position is in block {position.block} of {channel.name}, and this hub has read "
            f"{channel.height} blocks: try again or another hub, unless the ledger was replaced",
        )
    block = await channel.read(position.block)
    if position.block_hash not in (b"", block.hash):
        raise StreamEnded(
            CloseReason.OTHER_LEDGER,
            grpc.StatusCode.FAILED_PRECONDITION,
            f"the position is in block {position.block} of another ledger than the one that "
            f"{channel.name} is now: begin with block 0 of this one, or connect to the other",
        )
    count = len(block.notices.kinds)
    if position.HasField("transaction") and position.transaction >= count:
        raise StreamEnded(
            CloseReason.MESSAGE_REFUSED,
            grpc.StatusCode.OUT_OF_RANGE,
            f"the position is after transaction {position.transaction} of block {position.block} "
            f"of {channel.name}, which has {count}, counted from 0: give a position that a notice "
            "had, or one without a transaction for the whole block",
        )
    found = event_hub_pb2.Position()
    found.CopyFrom(position)
    found.block_hash = block.hash
    if position.HasField("transaction"):
        return Place(position.block, position.transaction + 1, found)
    return Place(position.block + 1, 0, found)
