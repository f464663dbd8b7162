"""Stored blocks: several in a row, and what one says without reading all of it.

A block holds up to hundreds of envelopes in megabytes. SQLite gives pieces of what it stores, so
only the lengths on the way to an envelope are read, and the envelope itself.
"""

import sqlite3
from collections.abc import Iterator

from selvedge_common.protoutil.errors import MalformedBlock
from selvedge_common.protoutil.wire import parse
from selvedge_protos.common import common_pb2

_SIZES = "SELECT number, length(bytes) FROM block WHERE number BETWEEN ? AND ? ORDER BY number"
_BLOCKS = "SELECT number, bytes FROM block WHERE number BETWEEN ? AND ? ORDER BY number"

# Tags of fields: Block.header; on the way to an envelope Block.data, and BlockData.data in it.
_HEADER = 1 << 3 | 2
_DATA = 2 << 3 | 2
_ENVELOPE = 1 << 3 | 2
# A tag, and a length of up to 2^35.
_HEAD_BYTES = 6


class BlockDamaged(sqlite3.DatabaseError):
    """What is stored is no block: SQLite could read it, and it is damage all the same."""


def read_blocks(
    connection: sqlite3.Connection, first: int, last: int, max_bytes: int
) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of block after block, from `first` on.

    To `last`, or to the one with which they have `max_bytes` together. Raises sqlite3.Error, which
    may be of the block after the one that it keeps back: sqlite3 is a row ahead.
    """
    # For the same reason it is asked for no more of them than are wanted: they may be large.
    end = first
    for number, size in connection.execute(_SIZES, (first, last)):
        end = number
        max_bytes -= size
        if max_bytes <= 0:
            break
    if end > first:
        yield from connection.execute(_BLOCKS, (first, end))
        return
    # In rows SQLite makes a copy of its own, which takes as long as all the rest of a large block.
    with connection.blobopen("block", "bytes", first, readonly=True) as stored:
        yield first, stored.read()


def number_of(block: bytes) -> int:
    """The number that is in the header of a marshalled block. Raises MalformedMessage."""
    # A number and two hashes: the length is one byte.
    if len(block) < 2 or block[0] != _HEADER or block[1] >= 0x80:
        raise MalformedBlock("It does not begin with the header of a block.")
    header = block[2 : 2 + block[1]]
    return parse(common_pb2.BlockHeader, header, "header of the block").number


def read_envelope(connection: sqlite3.Connection, number: int, position: int) -> bytes:
    """The marshalled common.Envelope at `position` of block `number`, both known to exist.

    Raises sqlite3.Error, BlockDamaged among them.
    """
    with connection.blobopen("block", "bytes", number, readonly=True) as stored:
        tag, start, end = _field(stored, number, 0)
        while tag != _DATA:
            tag, start, end = _field(stored, number, end)
        end = start
        for _ in range(position + 1):
            tag, start, end = _field(stored, number, end)
            if tag != _ENVELOPE:
                raise _damaged(number)
        stored.seek(start)
        return stored.read(end - start)


def _field(stored: sqlite3.Blob, number: int, position: int) -> tuple[int, int, int]:
    """(tag, start, end) of the field at `position`, which is a length and that many bytes."""
    stored.seek(position)
    head = stored.read(_HEAD_BYTES)
    length = shift = 0
    for size, byte in enumerate(head[1:], 2):
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            start = position + size
            if start + length > len(stored):
                break
            return head[0], start, start + length
        shift += 7
    raise _damaged(number)


def _damaged(number: int) -> BlockDamaged:
    return BlockDamaged(f"block {number} in it is no block")
