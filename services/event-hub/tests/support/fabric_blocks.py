"""Blocks of Fabric, as its peers and orderers gave them."""

from collections.abc import Iterator
from pathlib import Path

from selvedge_protos.common import common_pb2

TESTS = Path(__file__).parents[1]


def fabric_blocks(file: str) -> list[common_pb2.Block]:
    """The blocks of a file like "fabric-2.5/mychannel-peer.blocks"; a README beside it says what is
    in them."""
    found = _delimited((TESTS / file).read_bytes())
    return [common_pb2.Block.FromString(block) for block in found]


def _delimited(data: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        size = shift = 0
        while data[position] >= 0x80:
            size |= (data[position] & 0x7F) << shift
            position, shift = position + 1, shift + 7
        size |= data[position] << shift
        yield data[position + 1 : position + 1 + size]
        position += 1 + size
