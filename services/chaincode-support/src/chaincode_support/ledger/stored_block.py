"""Stored blocks: several in a row, and what one says without reading all of it.

A block holds up to hundreds of envelopes in megabytes. SQLite gives pieces of what it stores, so
only the lengths on the way to an envelope are read, and the envelope itself.
"""

import sqlite3
from collections.abc import Iterator

_BLOCKS = "SELECT number, bytes FROM block WHERE number BETWEEN ? AND ? ORDER BY number"

# Tags of the fields on the way: Block.data, and BlockData.data in it.
_DATA = 2 << 3 | 2
_ENVELOPE = 1 << 3 | 2
# A tag, and a length of up to 2^35.
_HEAD_BYTES = 6


class BlockDamaged(sqlite3.DatabaseError):
    """What is stored is no block: SQLite could read it, and it is damage all the same."""


def read_blocks(
    connection: sqlite3.Connection, first: int, last: int, max_bytes: int
) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of block after block, from `first` to `last` at most.

    They end with the one with which they have `max_bytes` together, or before it where later ones
    are smaller than the first. Raises sqlite3.Error, which may be of the block after the one that
    it is raised for: sqlite3 is a row ahead.
    """
    # In a row SQLite makes a copy of its own, which takes as long as all the rest of a large block.
    with connection.blobopen("block", "bytes", first, readonly=True) as stored:
        block = stored.read()
    yield first, block
    # For the same reason it is asked for no more of them than will be wanted, if all are as large.
    left = max_bytes - len(block)
    end = min(last, first + left // max(1, len(block)))
    for number, block in connection.execute(_BLOCKS, (first + 1, end)):
        if left <= 0:
            break
        yield number, block
        left -= len(block)


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
