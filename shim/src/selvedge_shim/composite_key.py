"""Keys made of several parts, in the form every Fabric shim uses.

A composite key is U+0000, the object type, and then each attribute, every part closed by U+0000.
Ranges over simple keys leave out what begins with U+0000, so the two kinds never meet.
"""

from collections.abc import Sequence

from selvedge_shim.errors import InvalidKey

SEPARATOR = "\x00"
# The largest code point: sorts after every attribute, so it ends a range over a prefix.
LAST_RUNE = "\U0010ffff"


def create_composite_key(object_type: str, attributes: Sequence[str]) -> str:
    """Join an object type and its attributes into one key.

    Raises:
        InvalidKey: a part is not valid UTF-8, or holds U+0000 or U+10FFFF.
    """
    parts = [object_type, *attributes]
    for part in parts:
        _check_part(part)
    return SEPARATOR + "".join(part + SEPARATOR for part in parts)


def split_composite_key(key: str) -> tuple[str, list[str]]:
    """Give the object type and the attributes that a composite key was made of.

    Raises:
        InvalidKey: the key is not a composite key.
    """
    if len(key) < 2 or key[0] != SEPARATOR or key[-1] != SEPARATOR:
        raise InvalidKey(f"{key!r} is not a composite key: make it with create_composite_key")
    object_type, *attributes = key[1:-1].split(SEPARATOR)
    return object_type, attributes


def check_key(key: str) -> None:
    """Refuse keys that are empty, are not UTF-8, or lie in the range of composite keys.

    Raises:
        InvalidKey: with the reason.
    """
    if not key:
        raise InvalidKey("the key is empty: give it at least one character")
    check_encoding(key)


def check_range_bound(key: str) -> None:
    """Refuse a bound of a simple range that reaches into the composite keys.

    Raises:
        InvalidKey: with the reason.
    """
    check_encoding(key)
    if key.startswith(SEPARATOR):
        raise InvalidKey(
            f"the bound {key!r} begins with U+0000, where composite keys live: "
            "use get_state_by_partial_composite_key"
        )


def check_encoding(key: str) -> None:
    """Refuse text that has no UTF-8 form (lone surrogates).

    Raises:
        InvalidKey: with the reason.
    """
    try:
        key.encode()
    except UnicodeEncodeError as failure:
        raise InvalidKey(f"the key {key!r} is not valid UTF-8: {failure.reason}") from None


def _check_part(part: str) -> None:
    check_encoding(part)
    if SEPARATOR in part or LAST_RUNE in part:
        raise InvalidKey(
            f"the part {part!r} holds U+0000 or U+10FFFF, which composite keys reserve"
        )
