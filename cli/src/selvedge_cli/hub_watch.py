"""How the event hub is, as it tells its administrators: signed requests to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

import grpc
import grpc.aio

from selvedge_cli.connection import Connection
from selvedge_cli.errors import CallRefused, CommandError, NotReachable, call_failed
from selvedge_common.signed_requests import sign_request
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import HubState, WatchRequest
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2_grpc import EventHubStub


async def look_at_hub(connection: Connection, limit: int, within: float) -> HubState:
    """The hub's state now.

    Args:
        limit: how many consumers it tells of at most; those that are furthest behind.
        within: seconds for the answer.

    Raises:
        CommandError: the hub cannot be reached, or refused.
    """
    async with aclosing(watch_hub(connection, 0, limit, within)) as states:
        async for state in states:
            return state
    raise _nothing(connection)


async def watch_hub(
    connection: Connection, interval: float, limit: int, within: float
) -> AsyncGenerator[HubState, None]:
    """The hub's state now, and again each interval, until it stops.

    Args:
        interval: seconds between two reports; 0 for one alone.
        limit: as in `look_at_hub`.
        within: seconds for the first one.

    Raises:
        CommandError: the hub cannot be reached, or refused, or goes away.
    """
    address = connection.settings.addresses.events
    request = WatchRequest(limit=limit)
    request.interval.FromTimedelta(timedelta(seconds=interval))
    user = connection.user
    envelope = sign_request(request, user.signer, tls_cert_hash=user.tls_hash)
    call = EventHubStub(connection.channel(address)).Watch(envelope)
    try:
        async with asyncio.timeout(within):
            state = await call.read()
        while isinstance(state, HubState):
            yield state
            state = await call.read()
    except TimeoutError:
        raise _nothing(connection) from None
    except grpc.aio.AioRpcError as error:
        raise _failed(error, address) from error
    finally:
        call.cancel()


def _nothing(connection: Connection) -> CommandError:
    address = connection.settings.addresses.events
    return NotReachable(f"the event hub at {address} has not told how it is: see `selvedge status`")


def _failed(error: grpc.aio.AioRpcError, address: str) -> CommandError:
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return CallRefused(
            f"the event hub at {address} does not tell of its consumers: it is another one than "
            "Selvedge's, or an older one",
            error.code(),
        )
    if error.code() == grpc.StatusCode.PERMISSION_DENIED:
        return CallRefused(
            f"the event hub at {address} tells administrators alone: leave --user out, or give "
            "--user admin",
            error.code(),
        )
    return call_failed(error, "the event hub", address)
