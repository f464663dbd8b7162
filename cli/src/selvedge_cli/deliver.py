"""Blocks from the peer's Deliver service."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import grpc.aio

from selvedge_cli.connection import Connection
from selvedge_cli.errors import CommandError, call_failed
from selvedge_common.protoutil import seek_request
from selvedge_common.protoutil.blocks import header_hash
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.peer import events_pb2, events_pb2_grpc

OLDEST, NEWEST, FOREVER = seek_request.OLDEST, seek_request.NEWEST, seek_request.FOREVER
Position = seek_request.Position


class DeliverRefused(CommandError):
    """The peer ended the request with a status that is not SUCCESS.

    Attributes:
        status: that status, a common.Status.
    """

    def __init__(self, address: str, status: common_pb2.Status.ValueType) -> None:
        name = common_pb2.Status.Name(status)
        super().__init__(f"the peer at {address} ended the request for blocks: {name}")
        self.status = status


class NoSuchChannel(CommandError):
    """The peer is there, the channel is not."""


@dataclass(frozen=True)
class Chain:
    """Which ledger a peer has, and how far it is.

    Attributes:
        ledger: hash of block 0, hexadecimal: no two ledgers begin with the same one.
        newest: number of the newest block.
        newest_hash: its hash, hexadecimal.
    """

    ledger: str
    newest: int
    newest_hash: str


async def look_at(connection: Connection) -> Chain:
    """Ask the peer which ledger it has.

    Raises:
        NoSuchChannel: it has none for the channel of the settings.
        CommandError: it cannot be reached, or does not let this user read.
    """
    try:
        oldest, newest = await _block(connection, OLDEST), await _block(connection, NEWEST)
    except DeliverRefused as refused:
        if refused.status != common_pb2.NOT_FOUND:
            raise
        settings = connection.settings
        raise NoSuchChannel(
            f"the peer at {settings.addresses.peer} has no channel {settings.channel}: give the "
            "name of one that it has with --channel"
        ) from refused
    return Chain(
        header_hash(oldest.header).hex(), newest.header.number, header_hash(newest.header).hex()
    )


async def _block(connection: Connection, place: Position) -> common_pb2.Block:
    async with aclosing(blocks(connection, place, place, wait=False)) as found:
        return await anext(found)


async def blocks(
    connection: Connection, start: Position, stop: Position, *, wait: bool
) -> AsyncGenerator[common_pb2.Block, None]:
    """Whole blocks from `start` to `stop`, both included.

    Args:
        wait: wait for blocks that are not there yet; otherwise they end the iteration.

    Raises:
        DeliverRefused: the range, or the right to read it, is not there.
        CommandError: the peer cannot be reached or the stream broke.
    """
    async for response in _deliver(connection, start, stop, wait, filtered=False):
        yield response.block


async def filtered_blocks(
    connection: Connection, start: Position, stop: Position, *, wait: bool
) -> AsyncGenerator[events_pb2.FilteredBlock, None]:
    """The same as `blocks`, with what DeliverFiltered tells of each."""
    async for response in _deliver(connection, start, stop, wait, filtered=True):
        yield response.filtered_block


async def _deliver(
    connection: Connection, start: Position, stop: Position, wait: bool, *, filtered: bool
) -> AsyncGenerator[events_pb2.DeliverResponse, None]:
    address = connection.settings.addresses.peer
    behavior = ab_pb2.SeekInfo.BLOCK_UNTIL_READY if wait else ab_pb2.SeekInfo.FAIL_IF_NOT_READY
    user = connection.user
    request = seek_request.seek_envelope(
        connection.settings.channel, start, stop, behavior, user.signer, user.tls_hash
    )
    service = events_pb2_grpc.DeliverStub(connection.channel(address))
    call = (service.DeliverFiltered if filtered else service.Deliver)(iter([request]))
    try:
        async for response in call:
            if response.WhichOneof("Type") != "status":
                yield response
            elif response.status == common_pb2.SUCCESS:
                return
            else:
                raise DeliverRefused(address, response.status)
    except grpc.aio.AioRpcError as error:
        raise call_failed(error, "the peer", address) from error
    finally:
        call.cancel()
