"""``selvedge.eventhub.v1.Producer``: programs that have events of their own.

They go the way of Fabric's Send (events/producer/events.go of 1.0.6): through the processor's
buffer, with its timeout, to who listens at that moment. What a ledger says cannot be forged here:
no producer has a channel that a source serves, and what it publishes is told only to those who
asked for its channel by name.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
from cryptography import x509

from event_hub import metrics
from event_hub.config import CHANNEL
from event_hub.events import CHAINCODE, HubEvent
from event_hub.interests import MAX_NAME_BYTES
from event_hub.processor import BufferFull, Processor
from selvedge_common.comm import GRPCServer, Places, StatusError
from selvedge_common.logs import get_logger
from selvedge_common.protoutil import seek
from selvedge_common.quoting import printable
from selvedge_protos.peer import events_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2_grpc import (
    ProducerServicer,
    add_ProducerServicer_to_server,
)

log = get_logger("eventhub.producer")

SERVICE = "selvedge.eventhub.v1.Producer"
URI = "selvedge://producer/"

LOG_SECONDS = 60.0
"""How long nothing more is logged of what a producer has dropped for the same reason."""
LOGGED = 1000
"""Of how many producers and reasons it is known when they were logged."""

Context = grpc.aio.ServicerContext[Any, Any]
Reason = event_hub_pb2.Dropped.Reason


class _Dropped(Exception):
    """An event that is not taken, and why."""

    def __init__(self, reason: Reason.ValueType, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class _DropLog:
    """Says in the log what is dropped, once in a while for a producer and a reason: one that opens
    a stream for each event writes no more there than one that has a single stream.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # When it was said last, and how many were dropped since; what was said last comes last.
        self._told: OrderedDict[tuple[str, Reason.ValueType], tuple[float, int]] = OrderedDict()

    def drop(self, producer: str, reason: Reason.ValueType, sentence: str) -> None:
        """Take note of an event that was not taken."""
        key, now = (producer, reason), self._clock()
        told, since = self._told.get(key, (-math.inf, 0))
        if now - told < LOG_SECONDS:
            self._told[key] = told, since + 1
            return
        self._told[key] = now, 0
        self._told.move_to_end(key)
        if len(self._told) > LOGGED:
            self._told.popitem(last=False)
        log.warning(
            "published event dropped", producer=producer, reason=sentence, dropped=since + 1
        )


class _Tally:
    """What became of one producer's events."""

    def __init__(self, producer: str, drops: _DropLog) -> None:
        self.accepted = 0
        self._producer = producer
        self._drops = drops
        self._dropped: Counter[Reason.ValueType] = Counter()
        self._first: dict[Reason.ValueType, str] = {}

    def drop(self, reason: Reason.ValueType, sentence: str) -> None:
        """Count an event that was not taken; the producer is told of the first of each reason."""
        self._dropped[reason] += 1
        self._first.setdefault(reason, sentence)
        self._drops.drop(self._producer, reason, sentence)
        name = event_hub_pb2.Dropped.Reason.Name(reason).lower()
        metrics.PUBLICATIONS_REFUSED.labels(reason=name).inc()

    def summary(self) -> event_hub_pb2.PublishSummary:
        """What the producer is told."""
        return event_hub_pb2.PublishSummary(
            accepted=self.accepted,
            dropped=[
                event_hub_pb2.Dropped(reason=reason, number=number, first=self._first[reason])
                for reason, number in self._dropped.items()
            ],
        )


class Producer(ProducerServicer):
    """Takes what producers publish.

    Args:
        processor: where it goes.
        sourced: the channels that sources serve.
        max_streams: how many streams may publish at once (``peer.events.maxProducers``); one
            producer may have half of them.
        max_event_bytes: how large an event may be that clients are sent.
        now: the clock, in UTC.
        clock: gives seconds, for the log.

    Attributes:
        accepted: how many events were taken.
        dropped: how many were not, by the reason.
    """

    def __init__(
        self,
        processor: Processor,
        sourced: Iterable[str],
        *,
        max_streams: int,
        max_event_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processor = processor
        # In lower case, which is all that Fabric's names of channels have.
        self._sourced = {channel.lower(): channel for channel in sourced}
        # No producer can keep all others out.
        self._places = Places(max_streams, (max_streams + 1) // 2)
        self._max_event_bytes = max_event_bytes
        self._now = now
        self._closing = False
        self._taking: set[asyncio.Timeout] = set()
        self._drops = _DropLog(clock)
        self.accepted = 0
        self.dropped: Counter[Reason.ValueType] = Counter()
        metrics.PRODUCERS.set_function(lambda: self.streams)

    @property
    def streams(self) -> int:
        """How many publish now."""
        return self._places.taken

    async def Publish(  # noqa: N802  # gRPC's name of the method
        self, requests: AsyncIterator[event_hub_pb2.PublishRequest], context: Context
    ) -> event_hub_pb2.PublishSummary:
        """Take events until the producer half-closes, then say what became of them.

        Raises:
            StatusError: UNAUTHENTICATED for whom has no producer's certificate, or one that has
                expired; RESOURCE_EXHAUSTED when too many publish at once; UNAVAILABLE when the hub
                is shutting down.
        """
        name, expires_at = _certified(context)
        if self._closing:
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE,
                "SHUTTING_DOWN: the event hub is shutting down; publish again",
            )
        full_for = self._places.full_for(name.encode())
        if full_for:
            metrics.PRODUCERS_REFUSED.inc()
            all_taken = f"{self._places.limit} streams publish at once already"
            own_taken = f"producer {name} has {self._places.of_client} streams already, its share"
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"TOO_MANY_PRODUCERS: {all_taken if full_for == 'all' else own_taken}; try again "
                "later, or raise peer.events.maxProducers",
            )
        with self._places.held(name.encode()):
            return await self._take_all(requests, name, expires_at)

    def farewell(self) -> None:
        """Take nothing more, and tell every producer what became of its events until now."""
        self._closing = True
        now = asyncio.get_running_loop().time()
        for taking in self._taking:
            taking.reschedule(now)

    async def _take_all(
        self,
        requests: AsyncIterator[event_hub_pb2.PublishRequest],
        name: str,
        expires_at: datetime,
    ) -> event_hub_pb2.PublishSummary:
        tally = _Tally(name, self._drops)
        try:
            async with asyncio.timeout(seek.FIRST_REQUEST_SECONDS) as taking:
                self._taking.add(taking)
                async for request in requests:
                    # Those who listen may have had their farewell: nobody would hear of it.
                    if self._closing:
                        break
                    taking.reschedule(None)
                    if self._now() > expires_at:
                        raise StatusError(
                            grpc.StatusCode.UNAUTHENTICATED,
                            f"the certificate of producer {name} expired at "
                            f"{expires_at.isoformat()}; issue another and publish with that",
                        )
                    try:
                        await self._take(request, name)
                    except _Dropped as error:
                        tally.drop(error.reason, str(error))
                        self.dropped[error.reason] += 1
                    else:
                        tally.accepted += 1
                        self.accepted += 1
                        metrics.PUBLICATIONS_ACCEPTED.inc()
        except TimeoutError:
            if not taking.expired():
                raise
            if not self._closing:
                raise StatusError(
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    f"no event came within {seek.FIRST_REQUEST_SECONDS:g} s: open the stream when "
                    "there is one",
                ) from None
            # It is the farewell; what is not in the summary was not taken.
        finally:
            self._taking.discard(taking)
        return tally.summary()

    async def _take(self, request: event_hub_pb2.PublishRequest, name: str) -> None:
        """Hand one event over. Raises _Dropped."""
        ledger = self._sourced.get(request.channel.lower())
        if ledger is not None:
            # People would take what differs in case alone for the ledger's own.
            is_it = request.channel == ledger
            why = "is" if is_it else f"differs only in the case of letters from {ledger}, which is"
            raise _Dropped(
                Reason.CHANNEL_OF_A_SOURCE,
                f"channel {request.channel} {why} a ledger's: publish on a channel of your own",
            )
        try:
            await self._processor.send(self._event(request, name))
        except BufferFull as error:
            raise _Dropped(Reason.BUFFER_FULL, str(error)) from error

    def _event(self, request: event_hub_pb2.PublishRequest, name: str) -> HubEvent:
        event = request.event
        if not CHANNEL.fullmatch(request.channel):
            raise _Dropped(
                Reason.MALFORMED,
                f"{printable(request.channel)!r} names no channel: give 1 to 249 letters, digits, "
                "dots and dashes",
            )
        if event.chaincode_id not in ("", name):
            raise _Dropped(
                Reason.MALFORMED,
                f"the event names {printable(event.chaincode_id)!r} as its chaincode: leave that "
                f"empty, or give the name that the certificate has, {name}",
            )
        if not 0 < len(event.event_name.encode()) <= MAX_NAME_BYTES:
            raise _Dropped(
                Reason.MALFORMED, f"the event needs an event_name of 1 to {MAX_NAME_BYTES} bytes"
            )
        event.chaincode_id = name
        message = events_pb2.Event(chaincode_event=event).SerializeToString()
        if len(message) > self._max_event_bytes:
            raise _Dropped(
                Reason.TOO_LARGE,
                f"the event has {len(message)} bytes, above the {self._max_event_bytes} of "
                "peer.events.maxSendMsgSize: publish smaller ones, or raise that",
            )
        return HubEvent(CHAINCODE, request.channel, message, name, event.event_name, published=True)


def add_producer(server: GRPCServer, producer: Producer) -> None:
    """Serve it."""
    add_ProducerServicer_to_server(producer, server)  # type: ignore[arg-type]


def _certified(context: Context) -> tuple[str, datetime]:
    """The producer's name by its TLS certificate, and until when that holds."""
    shown: Mapping[str, Iterable[bytes]] = context.auth_context()
    names = [
        name.decode().removeprefix(URI)
        for name in shown.get("x509_subject_alternative_name", ())
        if name.startswith(URI.encode())
    ]
    if not names:
        raise StatusError(
            grpc.StatusCode.UNAUTHENTICATED,
            f"publishing needs a TLS client certificate with a URI {URI}NAME: issue one with "
            "`selvedge ca issue --producer NAME` and connect with it",
        )
    (pem,) = shown["x509_pem_cert"]
    certificate = x509.load_pem_x509_certificate(pem)
    return names[0], certificate.not_valid_after_utc
