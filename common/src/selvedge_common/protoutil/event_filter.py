"""Which transactions a subscriber wants to be told of: `selvedge.eventhub.v1.Filter`, to ask it.

The event hub asks it for its subscribers, and a client that reads a peer asks it for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

from selvedge_common.protoutil.errors import ValidationCode
from selvedge_common.quoting import quoted
from selvedge_protos.peer import transaction_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2

Validity: TypeAlias = event_hub_pb2.Filter.Validity.ValueType

VALID = event_hub_pb2.Filter.VALID
INVALID = event_hub_pb2.Filter.INVALID
ANY = event_hub_pb2.Filter.ANY

MAX_VALUE_BYTES = 1024
"""The longest value of a filter: more names nothing that exists."""

MAX_BYTES = 16 * 1024
"""What the values of a filter may have together, where nothing else is said."""

MAX_STARS = 8
"""How many stars a glob may have: each is another search in every name that is looked at."""

_STARS = re.compile(r"\*+")


class UnfitFilter(ValueError):
    """A filter that lets nothing through, or has what no filter may have."""


class TooManyValues(UnfitFilter):
    """A filter with more values than it may have."""


class TooLarge(UnfitFilter):
    """A filter whose values have more bytes together than they may have."""


class Kind(NamedTuple):
    """What a filter looks at.

    Attributes:
        chaincode: the one that the transaction called; empty for a configuration.
        event: the name of its chaincode event; None where it set none.
        creator: MSP id of who created it.
        code: its validation code.
    """

    chaincode: str
    event: str | None
    creator: str
    code: ValidationCode

    @classmethod
    def of(cls, told: event_hub_pb2.TransactionNotice) -> Kind:
        """The kind of a transaction that is told of."""
        event = told.event.event_name if told.HasField("event") else None
        return cls(told.chaincode, event, told.creator_msp_id, told.code)


@dataclass(frozen=True)
class EventFilter:
    """What is told; see `selvedge.eventhub.v1.Filter`. Two that are equal let the same through.

    Attributes:
        chaincodes: those that transactions called.
        event_names: globs of the names of chaincode events.
        creators: MSP ids.
        validity: VALID, INVALID or ANY.
        transactions: whether valid transactions without an event are told, too.
    """

    chaincodes: frozenset[str] = frozenset()
    event_names: frozenset[str] = frozenset()
    creators: frozenset[str] = frozenset()
    validity: Validity = VALID
    transactions: bool = False

    @classmethod
    def read(
        cls, message: event_hub_pb2.Filter, max_values: int, max_bytes: int = MAX_BYTES
    ) -> EventFilter:
        """Read what a client sent. Stars that follow one another are one.

        Args:
            max_values: how many values it may have in all.
            max_bytes: how many bytes they may have together.

        Raises:
            UnfitFilter: a value is empty or too long, a glob has too many stars, or the validity is
                none that is known.
            TooManyValues: it has more than `max_values`.
            TooLarge: they have more than `max_bytes`.
        """
        parts = (message.chaincodes, message.event_names, message.creator_msp_ids)
        number = sum(map(len, parts))
        if number > max_values:
            raise TooManyValues(f"the filter has {number} values, more than {max_values}")
        size = 0
        for value in (value for part in parts for value in part):
            size += len(value.encode())
            if not value:
                raise UnfitFilter(
                    "the filter has an empty value: give a name, or leave the field empty"
                )
            if len(value.encode()) > MAX_VALUE_BYTES:
                raise UnfitFilter(
                    f"the filter has {quoted(value)}, of more than {MAX_VALUE_BYTES} bytes, which "
                    "nothing is called"
                )
        if size > max_bytes:
            raise TooLarge(f"the values of the filter have {size} bytes, more than {max_bytes}")
        if message.validity not in (VALID, INVALID, ANY):
            raise UnfitFilter(
                f"the filter has the validity {message.validity}: give VALID, INVALID or ANY"
            )
        return cls(
            frozenset(message.chaincodes),
            frozenset(map(_read_glob, message.event_names)),
            frozenset(message.creator_msp_ids),
            message.validity,
            message.transactions,
        )

    def message(self) -> event_hub_pb2.Filter:
        """The filter as it travels."""
        return event_hub_pb2.Filter(
            chaincodes=sorted(self.chaincodes),
            event_names=sorted(self.event_names),
            creator_msp_ids=sorted(self.creators),
            validity=self.validity,
            transactions=self.transactions,
        )

    @cached_property
    def effort(self) -> int:
        """How many looks at its names one transaction takes at most: one for each star, and one for
        all else."""
        return 1 + sum(name.count("*") for name in self.event_names)

    def matches(self, kind: Kind) -> bool:
        """Whether a transaction is told of."""
        if self.chaincodes and kind.chaincode not in self.chaincodes:
            return False
        if self.creators and kind.creator not in self.creators:
            return False
        valid = kind.code == transaction_pb2.VALID
        if self.validity != ANY and valid != (self.validity == VALID):
            return False
        if kind.event is None:
            return not self.event_names and (self.transactions or not valid)
        return not self.event_names or self._names(kind.event)

    def __str__(self) -> str:
        """What it lets through, in words."""
        words = [
            {VALID: "valid", INVALID: "rejected", ANY: "all"}[self.validity],
            "transactions" if self.transactions or self.validity == INVALID else "events",
        ]
        for what, values in (
            ("of", self.chaincodes),
            ("named", self.event_names),
            ("by", self.creators),
        ):
            if values:
                words += [what, _or(values)]
        return " ".join(words)

    def _names(self, name: str) -> bool:
        exact, globs = self._patterns
        return name in exact or any(_has_parts(name, *parts) for parts in globs)

    @cached_property
    def _patterns(self) -> tuple[frozenset[str], tuple[_Parts, ...]]:
        """The names that are exact, and the parts of the globs."""
        globs = frozenset(pattern for pattern in self.event_names if "*" in pattern)
        return self.event_names - globs, tuple(map(_split, globs))


# What lies before the first star of a glob, between the stars, and after the last.
_Parts: TypeAlias = tuple[str, tuple[str, ...], str]


def fits(glob: str, name: str) -> bool:
    """Whether a name is what a glob says, in which a * stands for any characters."""
    return _has_parts(name, *_split(glob)) if "*" in glob else name == glob


def _split(glob: str) -> _Parts:
    first, *middle, last = glob.split("*")
    return first, tuple(filter(None, middle)), last


def _has_parts(name: str, first: str, middle: tuple[str, ...], last: str) -> bool:
    """Takes the first place each time, which is right for stars alone, and looks at none twice."""
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    place, end = len(first), len(name) - len(last)
    for part in middle:
        place = name.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


def _read_glob(sent: str) -> str:
    glob = _STARS.sub("*", sent)
    if glob.count("*") > MAX_STARS:
        raise UnfitFilter(
            f"the filter has {quoted(glob)}, of more than {MAX_STARS} stars: say what lies between "
            "fewer"
        )
    return glob


def _or(values: Iterable[str]) -> str:
    return " or ".join(map(quoted, sorted(values)))
