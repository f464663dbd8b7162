"""The unit the hub distributes: one event, serialised once, with what routing needs to know."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from selvedge_protos.peer import events_pb2

Kind: TypeAlias = events_pb2.EventType.ValueType

BLOCK = events_pb2.BLOCK
CHAINCODE = events_pb2.CHAINCODE
REJECTION = events_pb2.REJECTION
FILTEREDBLOCK = events_pb2.FILTEREDBLOCK

# A block's events come in this order: its last one tells a consumer that it has seen them all.
IN_ORDER = (CHAINCODE, REJECTION, FILTEREDBLOCK, BLOCK)

EVERY_CHANNEL = ""
EVERY_NAME = ""


class Topic(NamedTuple):
    """One handler list: an event type on one channel or on all, and for chaincode events whose."""

    type: Kind
    channel: str
    chaincode: str = ""
    name: str = EVERY_NAME

    @property
    def bytes(self) -> int:
        """How many bytes the names in it have."""
        return len((self.channel + self.chaincode + self.name).encode())

    def __str__(self) -> str:
        """What the topic is called in logs and errors."""
        words = [events_pb2.EventType.Name(self.type)]
        if self.chaincode:
            words.append(f"{self.chaincode}/{self.name or '*'}")
        words.append(f"on channel {self.channel}" if self.channel else "on every channel")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class HubEvent:
    """One event on its way to every consumer that is interested in it.

    Args:
        type: what kind of event, which decides the handler list.
        channel: the channel it happened on.
        message: a serialised ``protos.Event``; all consumers share these bytes.
        chaincode: the chaincode's name, for CHAINCODE events only.
        name: the event name the chaincode chose, for CHAINCODE events only.
        published: whether a producer published it and no ledger says so. Then it is only for those
            who asked for its channel by name.

    Attributes:
        topics: the handler lists of those who are interested in it; the first is its own.
    """

    type: Kind
    channel: str
    message: bytes
    chaincode: str = ""
    name: str = ""
    published: bool = False
    topics: tuple[Topic, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find out once, for all consumers, who hears of it."""
        topics = _topics(self.type, self.channel, self.chaincode, self.name, self.published)
        object.__setattr__(self, "topics", topics)


@lru_cache(maxsize=4096)
def _topics(
    kind: Kind, channel: str, chaincode: str, name: str, published: bool
) -> tuple[Topic, ...]:
    channels = (channel,) if published else (channel, EVERY_CHANNEL)
    names = (name, EVERY_NAME) if name else (EVERY_NAME,)
    return tuple(Topic(kind, c, chaincode, n) for c in channels for n in names)
