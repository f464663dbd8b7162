"""``selvedge.eventhub.v1.Producer``: programs that have events of their own.

They go the way of Fabric's Send (events/producer/events.go of 1.0.6): through the processor's
buffer, with its timeout, to who listens at that moment. What a ledger says cannot be forged here:
no producer has a channel that a source serves, and what it publishes is told only to those who
asked for its channel by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
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
from selvedge_common.comm import GRPCServer, StatusError
from selvedge_common.logs import get_logger
from selvedge_common.quoting import printable
from selvedge_protos.peer import events_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2_grpc import (
    ProducerServicer,
    add_ProducerServicer_to_server,
)

log = get_logger("eventhub.producer")

URI = "selvedge://producer/"

Context = grpc.aio.ServicerContext[Any, Any]
Reason = event_hub_pb2.Dropped.Reason


class _Dropped(Exception):
    """An event that is not taken, and why."""

    def __init__(self, reason: Reason.ValueType, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Producer(ProducerServicer):
    """Takes what producers publish.

    Args:
        processor: where it goes.
        sourced: the channels that sources serve.
        max_streams: how many producers may publish at once (``peer.events.maxProducers``).
        max_event_bytes: how large an event may be that clients are sent.
        now: the clock, in UTC.

    Attributes:
        streams: how many publish now.
        accepted: how many events were taken.
        dropped: how many were not, by the reason.
    """

    def __init__(
        self,
        processor: Processor,
        sourced: Container[str],
        *,
        max_streams: int,
        max_event_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._processor = processor
        self._sourced = sourced
        self._max_streams = max_streams
        self._max_event_bytes = max_event_bytes
        self._now = now
        self.streams = 0
        self.accepted = 0
        self.dropped: Counter[Reason.ValueType] = Counter()
        metrics.PRODUCERS.set_function(lambda: self.streams)

    async def Publish(  # noqa: N802  # gRPC's name of the method
        self, requests: AsyncIterator[event_hub_pb2.PublishRequest], context: Context
    ) -> event_hub_pb2.PublishSummary:
        """Take events until the producer half-closes, then say what became of them.

        Raises:
            StatusError: UNAUTHENTICATED for whom has no producer's certificate, or one that has
                expired; RESOURCE_EXHAUSTED when too many publish at once.
        """
        name, expires_at = _certified(context)
        if self.streams >= self._max_streams:
            metrics.PRODUCERS_REFUSED.inc()
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"TOO_MANY_PRODUCERS: {self._max_streams} publish at once already; try again "
                "later, or raise peer.events.maxProducers",
            )
        self.streams += 1
        try:
            return await self._take_all(requests, name, expires_at)
        finally:
            self.streams -= 1

    async def _take_all(
        self,
        requests: AsyncIterator[event_hub_pb2.PublishRequest],
        name: str,
        expires_at: datetime,
    ) -> event_hub_pb2.PublishSummary:
        accepted = 0
        dropped: Counter[Reason.ValueType] = Counter()
        first: dict[Reason.ValueType, str] = {}
        async for request in requests:
            if self._now() > expires_at:
                raise StatusError(
                    grpc.StatusCode.UNAUTHENTICATED,
                    f"the certificate of producer {name} expired at {expires_at.isoformat()}; "
                    "issue another and publish with that",
                )
            try:
                await self._take(request, name)
            except _Dropped as error:
                dropped[error.reason] += 1
                self.dropped[error.reason] += 1
                if error.reason not in first:
                    first[error.reason] = str(error)
                    log.warning("published event dropped", producer=name, reason=str(error))
                metrics.PUBLICATIONS_REFUSED.labels(
                    reason=event_hub_pb2.Dropped.Reason.Name(error.reason).lower()
                ).inc()
            else:
                accepted += 1
                self.accepted += 1
                metrics.PUBLICATIONS_ACCEPTED.inc()
        return event_hub_pb2.PublishSummary(
            accepted=accepted,
            dropped=[
                event_hub_pb2.Dropped(reason=reason, number=number, first=first[reason])
                for reason, number in dropped.items()
            ],
        )

    async def _take(self, request: event_hub_pb2.PublishRequest, name: str) -> None:
        """Hand one event over. Raises _Dropped."""
        if request.channel in self._sourced:
            raise _Dropped(
                Reason.CHANNEL_OF_A_SOURCE,
                f"channel {request.channel} is a ledger's: publish on a channel of your own",
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
