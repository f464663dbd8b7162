"""Who wants to hear of what: the handler lists of the hub.

Follows the handler lists of Fabric 1.0.6 (events/producer/events.go), and respects the channel of
an interest, which Fabric only declares.
"""

from collections import Counter
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from event_hub import metrics
from event_hub.events import (
    BLOCK,
    CHAINCODE,
    EVERY_CHANNEL,
    FILTEREDBLOCK,
    REJECTION,
    HubEvent,
    Kind,
    Topic,
)
from selvedge_protos.peer import events_pb2

# Bounds what a registration can make the hub keep and log. Fabric's channel names have at most 249
# characters; it sets no bound for the names of chaincodes and their events.
MAX_NAME_BYTES = 1024

# What the names in all interests of one consumer may have together, where nothing else is said.
MAX_BYTES = 16 * 1024

# Audiences that are remembered: who is on all handler lists of an event, found out once.
_AUDIENCES = 256

_NONE: frozenset[Topic] = frozenset()

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
    """More than ``peer.events.maxInterests``, held or in one message, or with more bytes than
    ``peer.events.maxInterestBytes``; the stream has to end."""


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

    Used from the event loop only, and never awaits: lookups see complete registrations. A channel
    can be withheld from a consumer whatever it is registered for, at no cost for each event: while
    it is told the channel's past, or because it may not read the channel.

    Args:
        limit: how many interests one consumer may hold (``peer.events.maxInterests``).
        max_bytes: how many bytes the names in them may have (``peer.events.maxInterestBytes``).
    """

    def __init__(self, limit: int, max_bytes: int = MAX_BYTES) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._consumers: dict[Topic, dict[Consumer, None]] = {}
        self._topics: dict[Consumer, set[Topic]] = {}
        self._bytes: Counter[Consumer] = Counter()  # of the names that it holds
        self._wanted: Counter[tuple[int, str]] = Counter()
        self._withheld: dict[str, set[Consumer]] = {}
        self._audiences: dict[tuple[str, tuple[Topic, ...]], tuple[Consumer, ...]] = {}
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

    def register(self, consumer: Consumer, topic: Topic) -> Topic:
        """Put the consumer on a handler list, and give that.

        Raises:
            AlreadyRegistered: it is on it.
            TooManyInterests: the consumer holds as many as it may, or as many bytes.
        """
        held = self._topics.setdefault(consumer, set())
        if topic in held:
            raise AlreadyRegistered(f"already registered for {topic}")
        if len(held) >= self._limit:
            raise TooManyInterests(
                f"a consumer may register for {self._limit} interests at once; "
                "unregister some, or raise peer.events.maxInterests"
            )
        size = self._bytes[consumer] + topic.bytes
        if size > self._max_bytes:
            raise TooManyInterests(
                f"the names in the interests of a consumer may have {self._max_bytes} bytes "
                "together; unregister some, or raise peer.events.maxInterestBytes"
            )
        self._bytes[consumer] = size
        held.add(topic)
        self._consumers.setdefault(topic, {})[consumer] = None
        self._wanted[topic.type, topic.channel] += 1
        self._count += 1
        self._audiences.clear()
        return topic

    def unregister(self, consumer: Consumer, topic: Topic) -> Topic:
        """Take the consumer off a handler list, and give that.

        Raises:
            NotRegistered: it is not on it.
        """
        held = self._topics.get(consumer, set())
        if topic not in held:
            raise NotRegistered(f"not registered for {topic}")
        held.remove(topic)
        self._bytes[consumer] -= topic.bytes
        self._take_off(topic, consumer)
        return topic

    def remove(self, consumer: Consumer) -> None:
        """Take the consumer off every handler list; harmless for one that is on none."""
        del self._bytes[consumer]  # a counter takes that for 0 where it has none
        for topic in self._topics.pop(consumer, ()):
            self._take_off(topic, consumer)
        for channel in tuple(self._withheld):
            self.release(consumer, channel)

    def withhold(self, consumer: Consumer, channel: str) -> None:
        """Have `consumers` leave this one out of the channel's audiences, until `release`."""
        self._withheld.setdefault(channel, set()).add(consumer)
        self._audiences.clear()

    def release(self, consumer: Consumer, channel: str) -> None:
        """Withhold the channel no longer; harmless where it is not."""
        withheld = self._withheld.get(channel)
        if withheld is None or consumer not in withheld:
            return
        withheld.remove(consumer)
        if not withheld:
            del self._withheld[channel]
        self._audiences.clear()

    def topics(self, consumer: Consumer) -> Collection[Topic]:
        """Give the handler lists that the consumer is on."""
        return self._topics.get(consumer, ())

    def wanted(self, kind: int, channel: str) -> bool:
        """Tell whether anybody is registered for events of this type on this channel."""
        return (kind, channel) in self._wanted or (kind, EVERY_CHANNEL) in self._wanted

    def kinds(self, consumer: Consumer, channel: str) -> set[Kind]:
        """Give the event types that the consumer is registered for on this channel."""
        channels = (channel, EVERY_CHANNEL)
        return {topic.type for topic in self.topics(consumer) if topic.channel in channels}

    def wants(self, consumer: Consumer, event: HubEvent) -> bool:
        """Tell whether the consumer is registered for an event, be its channel withheld or not."""
        return not self._topics.get(consumer, _NONE).isdisjoint(event.topics)

    def consumers(self, event: HubEvent) -> Collection[Consumer]:
        """Give everyone interested in an event, each once however many interests match.

        What is given does not change: later registrations make another one.
        """
        lists = tuple(topic for topic in event.topics if topic in self._consumers)
        if not lists:
            return ()
        audience = self._audiences.get((event.channel, lists))
        return self._gather(event.channel, lists) if audience is None else audience

    def _gather(self, channel: str, lists: tuple[Topic, ...]) -> tuple[Consumer, ...]:
        withheld = self._withheld.get(channel, ())
        each = dict.fromkeys(consumer for topic in lists for consumer in self._consumers[topic])
        audience = tuple(consumer for consumer in each if consumer not in withheld)
        if len(self._audiences) >= _AUDIENCES:
            self._audiences.clear()
        self._audiences[channel, lists] = audience
        return audience

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
        self._audiences.clear()
