"""What a setting may be beyond its type: the bounds of numbers, the form of addresses.

Every number has bounds, those of its type in `BOUNDS`; a field with others says so:
`keepalive: Annotated[int, Range(0, 3600)]`. So no setting can be added without a check.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from selvedge_common.config.values import PARSERS, Duration, Size


class Bound(Protocol):
    """A check of one value that has its type already."""

    def check(self, value: object) -> None:
        """Raises ValueError saying what is expected."""


@dataclass(frozen=True)
class Range:
    """The numbers that make sense, both ends included, written as they are in the YAML.

    Attributes:
        least: the smallest.
        most: the largest.
        or_zero: whether 0 makes sense too.
    """

    least: str | float
    most: str | float
    or_zero: bool = False

    def check(self, value: object) -> None:
        """Raises ValueError saying what is expected."""
        least, most = (float(str(PARSERS[type(value)](end))) for end in (self.least, self.most))
        number = float(str(value))
        if not (least <= number <= most or (self.or_zero and number == 0)):
            raise ValueError(f"{'0, or ' * self.or_zero}from {self.least} to {self.most}")


@dataclass(frozen=True)
class HostPort:
    """An address, `host:port`.

    Attributes:
        listening: whether it is listened on: port 0 takes a free one, and no host means all.
    """

    listening: bool = False

    def check(self, value: object) -> None:
        """Raises ValueError saying what is expected."""
        host, colon, port = str(value).rpartition(":")
        decimal = bool(colon) and port.isascii() and port.isdecimal()
        least = 0 if self.listening else 1
        if not (host or self.listening) or not decimal or not least <= int(port) <= 65535:
            raise ValueError("host:port, such as localhost:7051")


# gRPC and protobuf count bytes, streams and milliseconds in 32 bits with a sign. Below the smallest
# size and duration a unit was forgotten: no signed message is that small, and nobody that quick.
MOST = 2**31 - 1
LONGEST = "576h"

BOUNDS: Mapping[object, Bound] = {
    Duration: Range("10ms", LONGEST),
    Size: Range("1KB", MOST),
    int: Range(1, MOST),
    float: Range(0.001, MOST),
}
