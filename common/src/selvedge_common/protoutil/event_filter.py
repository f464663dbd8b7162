"""Which transactions a subscriber wants to be told of: `selvedge.eventhub.v1.Filter`, to ask it.

The event hub asks it for its subscribers, and a client that reads a peer asks it for itself.
"""

from __future__ import annotations

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


class UnfitFilter(ValueError):
    """A filter that lets nothing through, or has what no filter may have."""


class TooManyValues(UnfitFilter):
    """A filter with more values than it may have."""


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
    def read(cls, message: event_hub_pb2.Filter, max_values: int) -> EventFilter:
        """Read what a client sent.

        Args:
            max_values: how many values it may have in all.

        Raises:
            UnfitFilter: a value is empty or too long, or the validity is none that is known.
            TooManyValues: it has more than `max_values`.
        """
        parts = (message.chaincodes, message.event_names, message.creator_msp_ids)
        number = sum(map(len, parts))
        if number > max_values:
            raise TooManyValues(f"the filter has {number} values, more than {max_values}")
        for value in (value for part in parts for value in part):
            if not value:
                raise UnfitFilter(
                    "the filter has an empty value: give a name, or leave the field empty"
                )
            if len(value.encode()) > MAX_VALUE_BYTES:
                raise UnfitFilter(
                    f"the filter has {quoted(value)}, of more than {MAX_VALUE_BYTES} bytes, which "
                    "nothing is called"
                )
        if message.validity not in (VALID, INVALID, ANY):
            raise UnfitFilter(
                f"the filter has the validity {message.validity}: give VALID, INVALID or ANY"
            )
        names = frozenset(message.event_names)
        return cls(
            frozenset(message.chaincodes),
            names,
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
        return name in exact or any(fits(glob, name) for glob in globs)

    @cached_property
    def _patterns(self) -> tuple[frozenset[str], frozenset[str]]:
        globs = frozenset(pattern for pattern in self.event_names if "*" in pattern)
        return self.event_names - globs, globs


def fits(glob: str, name: str) -> bool:
    """Whether a name is what a glob says, in which a * stands for any characters.

    Takes the first place each time, which is right for stars alone, and looks at none twice.
    """
    first, *rest = glob.split("*")
    if not rest:
        return name == glob
    *middle, last = rest
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    place, end = len(first), len(name) - len(last)
    for part in middle:
        place = name.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


def _or(values: Iterable[str]) -> str:
    return " or ".join(map(quoted, sorted(values)))
