"""Hand a transaction to the ordering."""

from __future__ import annotations

import grpc
import grpc.aio

from selvedge_cli.connection import Connection
from selvedge_cli.errors import WHAT_TO_DO, CommandError, NotReachable, call_failed
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2_grpc


class NotOrdered(CommandError):
    """The ordering refused the transaction: it is in no block and will not be."""


class OrderingUncertain(CommandError):
    """The transaction was sent, and no answer came that says whether it is ordered."""


async def reach_ordering(connection: Connection) -> None:
    """Return once there is a connection to the ordering; before that nothing can have been sent.

    Raises:
        NotReachable: nothing answers there.
    """
    address = connection.settings.addresses.orderer
    channel = connection.channel(address)
    while (state := channel.get_state(try_to_connect=True)) != grpc.ChannelConnectivity.READY:
        if state == grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise NotReachable(f"the ordering at {address} does not answer: {WHAT_TO_DO}")
        await channel.wait_for_state_change(state)


async def order(connection: Connection, envelope: common_pb2.Envelope) -> None:
    """Send a transaction and return once it is ordered for good.

    Raises:
        NotOrdered: the ordering refused it.
        OrderingUncertain: the stream broke before it answered, or it does not know itself.
    """
    address = connection.settings.addresses.orderer
    call = ab_pb2_grpc.AtomicBroadcastStub(connection.channel(address)).Broadcast(iter([envelope]))
    try:
        async for response in call:
            if response.status == common_pb2.SUCCESS:
                return
            status = common_pb2.Status.Name(response.status)
            if response.status == common_pb2.INTERNAL_SERVER_ERROR:
                raise OrderingUncertain(
                    f"the ordering at {address} answered: {status}: {response.info}"
                )
            raise NotOrdered(f"the ordering at {address} refused: {status}: {response.info}")
    except grpc.aio.AioRpcError as error:
        raise OrderingUncertain(call_failed(error, "the ordering", address).message) from error
    finally:
        call.cancel()
    raise OrderingUncertain(f"the ordering at {address} ended the stream without an answer")
