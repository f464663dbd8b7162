"""Blocks from the peer or the event hub, as long as it is there."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from selvedge_cli.client_errors import told_by_client
from selvedge_cli.connection import Connection
from selvedge_client import Ledger
from selvedge_client import deliver as client
from selvedge_client.deliver import FOREVER, NEWEST, Position
from selvedge_client.link import Link
from selvedge_protos.peer import events_pb2

__all__ = ["FOREVER", "NEWEST", "Position", "filtered_blocks", "look_at", "newest_of_hub"]


async def look_at(connection: Connection) -> Ledger:
    """Which ledger the peer has for the channel of the settings, and how far it is.

    Raises:
        NoSuchChannel: it has none.
        CommandError: it cannot be reached, or does not let this user read.
    """
    with told_by_client(connection.settings):
        return await client.look_at(_peer(connection), connection.settings.channel)


async def newest_of_hub(connection: Connection) -> int:
    """The number of the newest block that the event hub has of the channel of the settings.

    Raises:
        NoSuchChannel: no ledger of the hub has it.
        CommandError: the hub cannot be reached, or does not let this user read.
    """
    settings = connection.settings
    with told_by_client(settings):
        link = _link(connection, settings.addresses.events)
        return (await client.block(link, settings.channel, NEWEST)).header.number


async def filtered_blocks(
    connection: Connection, start: Position, stop: Position, *, wait: bool
) -> AsyncGenerator[events_pb2.FilteredBlock, None]:
    """Filtered blocks from `start` to `stop`, both included.

    Args:
        wait: wait for blocks that are not there yet; otherwise they end the iteration.

    Raises:
        NoSuchBlock: there is nothing at `start` yet.
        CommandError: the peer cannot be reached, refuses, or the stream broke.
    """
    channel = connection.settings.channel
    with told_by_client(connection.settings):
        async for response in client.deliver(
            _peer(connection), channel, start, stop, filtered=True, wait=wait
        ):
            yield response.filtered_block


def _peer(connection: Connection) -> Link:
    return _link(connection, connection.settings.addresses.peer)


def _link(connection: Connection, address: str) -> Link:
    return Link(address, connection.channel(address), connection.user)
