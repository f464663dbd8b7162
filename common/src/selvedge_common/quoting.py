"""A stranger's text in our sentences: short, and without characters that command a terminal."""

QUOTED_CHARACTERS = 100
"""So much of a stranger's text is enough to recognise it by."""


def quoted(text: str | bytes, limit: int = QUOTED_CHARACTERS) -> str:
    """Give text in quotation marks, on one line: what does not print is escaped.

    Args:
        text: a stranger's; bytes are read as UTF-8 as far as they are.
        limit: so many of its characters are shown; `…` stands for the rest.
    """
    shown, rest = _cut(text, limit)
    return repr(shown) + rest


def printable(text: str | bytes, limit: int = QUOTED_CHARACTERS) -> str:
    """Give the same without the quotation marks, for text that shows by itself where it ends."""
    shown, rest = _cut(text, limit)
    if not shown.isprintable():
        shown = "".join(map(_escaped, shown))
    return shown + rest


def _cut(text: str | bytes, limit: int) -> tuple[str, str]:
    if isinstance(text, bytes):
        # A character has four bytes at most; what is beyond is not worth decoding.
        rest = len(text) > 4 * limit
        text = text[: 4 * limit].decode(errors="backslashreplace")
    else:
        rest = False
    return text[:limit], "…" if rest or len(text) > limit else ""


def _escaped(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]
