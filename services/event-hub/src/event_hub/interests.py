"""Who wants to hear of what: the handler lists of the hub.

Follows the handler lists of Fabric 1.0.6 (events/producer/events.go), and respects the channel of
an interest, which Fabric only declares.
"""

from collections import Counter
from collections.abc import Callable, Collection
from typing import Generic, NamedTuple, TypeVar

from event_hub import metrics
from event_hub.events import BLOCK, CHAINCODE, FILTEREDBLOCK, REJECTION, HubEvent
from selvedge_protos.peer import events_pb2

EVERY_CHANNEL = ""
EVERY_NAME = ""

# Bounds what a registration can make the hub keep and log. Fabric's channel names have at most 249
# characters; it sets no bound for the names of chaincodes and their events.
MAX_NAME_BYTES = 1024

Consumer = TypeVar("Consumer")

# Tells whether anybody is registered for an event type on a channel, as Interests.wanted does.
Wanted = Callable[[int, str], bool]


class InterestError(ValueError):
    """An interest that cannot be registered or unregistered; the stream it came on is unharmed.

    ``result`` is the short name under which the metric counts it.
    """

    result = "refused"


class UnknownEventType(InterestError):
    """The interest names an event type that nobody can register for."""

    result = "unknown_type"


class ChaincodeNotNamed(InterestError):
    """A CHAINCODE interest came without its chaincode_reg_info, or with an empty chaincode id."""

    result = "no_chaincode"


class NameTooLong(InterestError):
    """The interest names something by more than MAX_NAME_BYTES, which nothing is called by."""

    result = "name_too_long"


class AlreadyRegistered(InterestError):
    """The consumer registered for the same thing before."""

    result = "already_registered"


class NotRegistered(InterestError):
    """The consumer unregisters what it never registered for."""

    result = "not_registered"


class TooManyInterests(Exception):
    """More than ``peer.events.maxInterests``, held or in one message; the stream has to end."""


class Topic(NamedTuple):
    """One handler list: an event type on one channel or on all, and for chaincode events whose."""

    type: events_pb2.EventType.ValueType
    channel: str
    chaincode: str = ""
    name: str = ""

    def __str__(self) -> str:
        """What the topic is called in logs and errors."""
        words = [events_pb2.EventType.Name(self.type)]
        if self.chaincode:
            words.append(f"{self.chaincode}/{self.name or '*'}")
        words.append(f"on channel {self.channel}" if self.channel else "on every channel")
        return " ".join(words)


def topic_of(interest: events_pb2.Interest) -> Topic:
    """Read an interest.

    Raises:
        UnknownEventType: nobody can register for its type.
        ChaincodeNotNamed: it is for chaincode events, and does not say of which chaincode.
        NameTooLong: a name in it is longer than any name may be.
    """
    if interest.ByteSize() > MAX_NAME_BYTES:
        raise NameTooLong(
            f"an interest of {interest.ByteSize()} bytes names nothing that exists; "
            f"the names in it may have {MAX_NAME_BYTES} bytes together"
        )
    kind = interest.event_type
    if kind in (BLOCK, FILTEREDBLOCK, REJECTION):
        return Topic(kind, interest.chainID)
    if kind != CHAINCODE:
        raise UnknownEventType(
            f"no one can register for event type {kind}; "
            "use BLOCK, FILTEREDBLOCK, CHAINCODE or REJECTION"
        )
    if not interest.HasField("chaincode_reg_info"):
        raise ChaincodeNotNamed(
            "an interest in CHAINCODE events needs chaincode_reg_info, and this one has none"
        )
    wanted = interest.chaincode_reg_info
    if not wanted.chaincode_id:
        raise ChaincodeNotNamed(
            "an interest in CHAINCODE events needs a chaincode id, and this one's is empty"
        )
    return Topic(CHAINCODE, interest.chainID, wanted.chaincode_id, wanted.event_name)


class Interests(Generic[Consumer]):
    """The handler lists, and for each consumer which of them it is on.

    Used from the event loop only, and never awaits: lookups see complete registrations.

    Args:
        limit: how many interests one consumer may hold (``peer.events.maxInterests``).
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._consumers: dict[Topic, dict[Consumer, None]] = {}
        self._topics: dict[Consumer, set[Topic]] = {}
        self._wanted: Counter[tuple[int, str]] = Counter()
        self._count = 0
        metrics.INTERESTS.set_function(lambda: self._count)

    def check_number(self, number: int) -> None:
        """Check how many interests come in one message.

        Raises:
            TooManyInterests: there are more than a consumer may hold.
        """
        if number > self._limit:
            raise TooManyInterests(
                f"one message has {number} interests, and a consumer may hold {self._limit} at "
                "once; send fewer, or raise peer.events.maxInterests"
            )

    def register(self, consumer: Consumer, interest: events_pb2.Interest) -> Topic:
        """Put the consumer on the handler list for the interest, and give the list's topic.

        Raises:
            InterestError: the interest makes no sense or is registered already.
            TooManyInterests: the consumer holds as many as it may.
        """
        topic = topic_of(interest)
        held = self._topics.setdefault(consumer, set())
        if topic in held:
            raise AlreadyRegistered(f"already registered for {topic}")
        if len(held) >= self._limit:
            raise TooManyInterests(
                f"a consumer may register for {self._limit} interests at once; "
                "unregister some, or raise peer.events.maxInterests"
            )
        held.add(topic)
        self._consumers.setdefault(topic, {})[consumer] = None
        self._wanted[topic.type, topic.channel] += 1
        self._count += 1
        return topic

    def unregister(self, consumer: Consumer, interest: events_pb2.Interest) -> Topic:
        """Take the consumer off the handler list for the interest, and give the list's topic.

        Raises:
            InterestError: the interest makes no sense or is not registered.
        """
        topic = topic_of(interest)
        held = self._topics.get(consumer, set())
        if topic not in held:
            raise NotRegistered(f"not registered for {topic}")
        held.remove(topic)
        self._take_off(topic, consumer)
        return topic

    def remove(self, consumer: Consumer) -> None:
        """Take the consumer off every handler list; harmless for one that is on none."""
        for topic in self._topics.pop(consumer, ()):
            self._take_off(topic, consumer)

    def wanted(self, kind: int, channel: str) -> bool:
        """Tell whether anybody is registered for events of this type on this channel."""
        return (kind, channel) in self._wanted or (kind, EVERY_CHANNEL) in self._wanted

    def consumers(self, event: HubEvent) -> Collection[Consumer]:
        """Give everyone interested in an event, each once however many interests match."""
        lists = [
            found
            for channel in {event.channel, event.channel if event.published else EVERY_CHANNEL}
            for name in {event.name, EVERY_NAME}
            if (found := self._consumers.get(Topic(event.type, channel, event.chaincode, name)))
        ]
        if len(lists) == 1:
            return lists[0]
        return dict.fromkeys(consumer for found in lists for consumer in found)

    def _take_off(self, topic: Topic, consumer: Consumer) -> None:
        listed = self._consumers[topic]
        del listed[consumer]
        if not listed:
            del self._consumers[topic]
        key = (topic.type, topic.channel)
        self._wanted[key] -= 1
        if not self._wanted[key]:
            del self._wanted[key]
        self._count -= 1
