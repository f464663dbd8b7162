"""Deliver: the blocks of a channel to whoever may read it."""

from chaincode_support.deliver.block_reader import BlockReader, one_by_one
from chaincode_support.deliver.deliver import Deliver, Readable, add_peer_deliver

__all__ = ["BlockReader", "Deliver", "Readable", "add_peer_deliver", "one_by_one"]
