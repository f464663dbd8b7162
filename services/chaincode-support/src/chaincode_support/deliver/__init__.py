"""Deliver: the blocks of a channel to whoever may read it."""

from chaincode_support.deliver.deliver import Deliver, Readable, add_peer_deliver

__all__ = ["Deliver", "Readable", "add_peer_deliver"]
