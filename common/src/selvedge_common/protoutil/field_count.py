"""How many fields a marshalled message has, found without parsing it.

Parsing makes an object of every field. A message of nothing but empty fields, two bytes each, would
hold up everything else for seconds; counting stops as soon as there are too many.
"""

from collections.abc import Sequence

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}


def has_more_fields(data: bytes, most: int, path: Sequence[int] = ()) -> bool:
    """Whether the message has more than `most` fields, those inside of the fields of `path` too.

    `path` are field numbers: (1, 3) means the messages in field 1, and those in their field 3.
    What is no message has no more fields than can be read: parsing tells what is wrong with it.
    """
    # A field has at least two bytes, so most messages need not be looked at.
    if len(data) <= 2 * most:
        return False
    return _count(memoryview(data), most, path) > most


def _count(data: memoryview, most: int, path: Sequence[int]) -> int:
    """The fields of `data`; no more than needed to find that they exceed `most`."""
    count = position = 0
    try:
        while position < len(data) and count <= most:
            key, position = _varint(data, position)
            count += 1
            field, kind = key >> 3, key & 7
            if kind == _VARINT:
                _, position = _varint(data, position)
            elif kind == _LENGTH:
                length, start = _varint(data, position)
                position = start + length
                if path and field == path[0]:
                    count += _count(data[start:position], most - count, path[1:])
            else:
                position += _SIZES.get(kind, 0)  # a group's ends have no content
    except IndexError:
        pass  # cut off in the middle
    return count


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """The number at `position`, and where it ends. Raises IndexError."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            return value, position
        shift += 7
