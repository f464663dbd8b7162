"""How the hub is at one moment: its channels, its consumers and its producers."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from operator import itemgetter
from typing import TypeAlias, TypeVar

from event_hub.channels.channel import Channel
from event_hub.consumers import Consumers
from event_hub.producer import Producer
from event_hub.session import Service, Session
from selvedge_common.protoutil.wire import timestamp_of
from selvedge_common.quoting import printable
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import (
    ChannelState,
    ConsumerState,
    Dropped,
    HubState,
    ProducersState,
)

# Consumers that are looked at before all else that is ready goes on.
CONSUMERS_A_TURN = 64

# So many interests of one consumer are told, and so much of each.
MAX_INTERESTS = 5
INTEREST_CHARACTERS = 200

_T = TypeVar("_T")
_Rank: TypeAlias = tuple[int, int, datetime]


class HubStates:
    """Tells how the hub is, whenever asked.

    Args:
        hub: the hub's name in its logs (``peer.id``).
        channels: those that sources serve.
        consumers: all consumers.
        producer: those who publish.
    """

    def __init__(
        self, hub: str, channels: Mapping[str, Channel], consumers: Consumers, producer: Producer
    ) -> None:
        self._hub = hub
        self._started = datetime.now(UTC)
        self._channels = channels
        self._consumers = consumers
        self._producer = producer

    async def take(self, limit: int) -> HubState:
        """Say how the hub is. Consumers are looked at a few at a time: others have their turn.

        Args:
            limit: how many consumers are told of at most, those that are furthest behind first.
        """
        at = datetime.now(UTC)
        open_ = dict.fromkeys(Service, 0)
        events = bytes_ = 0
        furthest: list[tuple[_Rank, Session]] = []
        for some in _turns(list(self._consumers)):
            for session in some:
                open_[session.service] += 1
                events += session.waiting_events
                bytes_ += session.waiting_bytes
            furthest += ((_rank(session), session) for session in some)
            furthest = sorted(furthest, key=itemgetter(0))[:limit]
            await asyncio.sleep(0)
        state = HubState(
            hub=self._hub,
            started=timestamp_of(self._started),
            at=timestamp_of(at),
            channels=map(_channel, self._channels.values()),
            open={service.value: count for service, count in open_.items()},
            waiting_events=events,
            waiting_bytes=bytes_,
            ended={reason.value: count for reason, count in self._consumers.closed.items()},
            producers=_producers(self._producer),
        )
        for ranked in _turns(furthest):
            state.consumers.extend(_consumer(session) for _, session in ranked)
            await asyncio.sleep(0)
        return state


def _turns(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for begin in range(0, len(items), CONSUMERS_A_TURN):
        yield items[begin : begin + CONSUMERS_A_TURN]


def _rank(session: Session) -> _Rank:
    """Order by who is furthest behind, by blocks and then by bytes, and then by who came first."""
    return -sum(session.blocks_behind().values()), -session.waiting_bytes, session.since


def _channel(channel: Channel) -> ChannelState:
    status = channel.status
    return ChannelState(
        name=channel.name,
        height=channel.height,
        source=status.address,
        behind=status.behind(channel.height),
        trouble=status.trouble,
    )


def _consumer(session: Session) -> ConsumerState:
    interests = list(islice(session.interests(), MAX_INTERESTS + 1))
    return ConsumerState(
        service=ConsumerState.Service.Value(session.service),
        peer=session.peer,
        identity=session.identity,
        since=timestamp_of(session.since),
        interests=[printable(text, INTEREST_CHARACTERS) for text in interests[:MAX_INTERESTS]],
        more_interests=len(interests) > MAX_INTERESTS,
        delivered=session.delivered,
        waiting_events=session.waiting_events,
        waiting_bytes=session.waiting_bytes,
        behind=session.blocks_behind(),
    )


def _producers(producer: Producer) -> ProducersState:
    return ProducersState(
        open=producer.streams,
        accepted=producer.accepted,
        dropped={
            Dropped.Reason.Name(reason): number for reason, number in producer.dropped.items()
        },
    )
