"""Where a Chat client wants to resume: the call's metadata names a block for each channel."""

from collections.abc import Iterator, Sequence

import grpc

from event_hub.session import CloseReason, StreamEnded
from selvedge_common.quoting import quoted

KEY = "selvedge-start-block"

_HIGHEST = 2**64 - 1
_DIGITS = len(str(_HIGHEST))


def start_blocks(metadata: Sequence[tuple[str, str | bytes]]) -> dict[str, int]:
    """Read ``selvedge-start-block: mychannel=17`` from a call's metadata.

    It may come several times, and name several channels separated by commas.

    Args:
        metadata: the call's; other keys are left alone.

    Returns:
        By channel, the number of the first block that the client wants to hear of.

    Raises:
        StreamEnded: INVALID_ARGUMENT, START_BLOCK_MALFORMED: it cannot be read, or names a channel
            twice.
    """
    starts: dict[str, int] = {}
    for key, value in metadata:
        if key == KEY:
            for channel, number in map(_read, _split(value)):
                if channel in starts:
                    raise _malformed(f"it names {quoted(channel)} twice; name each channel once")
                starts[channel] = number
    return starts


def _split(value: str | bytes) -> Iterator[str]:
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    yield from text.split(",")


def _read(part: str) -> tuple[str, int]:
    channel, equals, number = (piece.strip() for piece in part.partition("="))
    if not (channel and equals and number.isascii() and number.isdigit()):
        raise _malformed(f"{quoted(part)} is no channel and number, as in mychannel=17")
    # Leading zeros are no reason to compute with thousands of digits.
    significant = number.lstrip("0") or "0"
    if len(significant) > _DIGITS or int(significant) > _HIGHEST:
        raise _malformed(
            f"the block of {quoted(channel)} is above {_HIGHEST}, the highest that there can be"
        )
    return channel, int(significant)


def _malformed(what: str) -> StreamEnded:
    return StreamEnded(
        CloseReason.START_BLOCK_MALFORMED,
        grpc.StatusCode.INVALID_ARGUMENT,
        f"the metadata {KEY} cannot be used: {what}",
    )
