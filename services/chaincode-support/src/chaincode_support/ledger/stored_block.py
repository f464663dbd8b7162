"""One envelope of a stored block, found without reading the others.

A block holds up to hundreds of envelopes in megabytes. SQLite gives pieces of what it stores, so
only the lengths on the way to the envelope are read, and the envelope itself.
"""

import sqlite3

# Tags of the fields on the way: Block.data, and BlockData.data in it.
_DATA = 2 << 3 | 2
_ENVELOPE = 1 << 3 | 2
# A tag, and a length of up to 2^35.
_HEAD_BYTES = 6


class BlockDamaged(sqlite3.DatabaseError):
    """What is stored is no block: SQLite could read it, and it is damage all the same."""


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
