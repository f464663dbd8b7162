"""The ordering's own service, orderer.AtomicBroadcast."""

from chaincode_support.deliver import Deliver
from chaincode_support.ordering.broadcast import Broadcast
from selvedge_common.comm import GRPCServer


def add_atomic_broadcast(server: GRPCServer, broadcast: Broadcast, deliver: Deliver) -> None:
    """Serve orderer.AtomicBroadcast; `deliver` reads the ordering's own log."""
    server.add_message_stream("/orderer.AtomicBroadcast/Broadcast", broadcast.serve)
    server.add_message_stream("/orderer.AtomicBroadcast/Deliver", deliver.deliver)
