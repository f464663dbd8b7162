"""The Subscribe method: who may listen, to what, and from where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import grpc

from event_hub.channels.channel import Channel
from event_hub.consumers import Consumers
from event_hub.first_request import first_request
from event_hub.session import CloseReason, Service, Session, StreamEnded, words_for
from event_hub.subscriptions.head import MARKER_SECONDS, Head
from event_hub.subscriptions.place import find_place
from event_hub.subscriptions.subscription import Subscription
from selvedge_common.comm import GRPCServer, MessageStream, StatusError
from selvedge_common.logs import get_logger
from selvedge_common.msp import IdentityError, PolicyError, parse_identity
from selvedge_common.protoutil.errors import BlockUnavailable
from selvedge_common.protoutil.event_filter import (
    MAX_BYTES,
    EventFilter,
    TooLarge,
    TooManyValues,
    UnfitFilter,
)
from selvedge_common.protoutil.seek import client_certificate_hash
from selvedge_common.protoutil.wire import marshal
from selvedge_common.quoting import quoted
from selvedge_common.signed_requests import open_request
from selvedge_protos.common import common_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2

log = get_logger("eventhub.subscriptions")

SERVICE = "selvedge.eventhub.v1.EventHub"
METHOD = f"/{SERVICE}/Subscribe"

# What a request may have besides its filter: an identity above all. It is kept, to be judged again.
_REQUEST_BYTES = 16 * 1024

FAULT = "the event hub could not tell this client of a block, by a fault of its own; connect again"


class Subscribe:
    """Serves subscriptions.

    Args:
        channels: the channels that can be subscribed to, by name.
        consumers: admits streams, and knows them until they have ended.
        max_values: how many values a filter may have (``peer.events.maxInterests``).
        max_bytes: how many bytes they may have together (``peer.events.maxInterestBytes``).
        certificates_asked: whether clients are asked for a TLS certificate.
        marker_seconds: how often a subscriber who is told nothing may be told that its position
            moves.
        now: the clock, in UTC.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        consumers: Consumers,
        *,
        max_values: int,
        max_bytes: int = MAX_BYTES,
        certificates_asked: bool = True,
        marker_seconds: float = MARKER_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._heads = {name: Head(channel, marker_seconds) for name, channel in channels.items()}
        self._consumers = consumers
        self._max_values = max_values
        self._max_bytes = max_bytes
        self._certificates_asked = certificates_asked
        self._now = now

    async def __call__(self, stream: MessageStream) -> None:
        """Serve one stream until the client leaves, or its subscription is refused or ends.

        Raises:
            StatusError: the stream was not admitted.
        """
        with self._consumers.session(Service.SUBSCRIBE, stream) as session:
            try:
                subscription = await self._open(session)
                await subscription.run()
            except _ENDS as error:
                end = _end(error)
                log.info("subscription ended", peer=session.peer, why=end.details)
                session.finish(end.reason, end.code, end.sentence)
            except Exception:
                log.exception("fault with a subscription", peer=session.peer)
                session.close(CloseReason.HUB_FAULT, grpc.StatusCode.INTERNAL, FAULT)

    async def _open(self, session: Session) -> Subscription:
        """Decide on the request, and send the first notice. Raises one of _ENDS."""
        envelope = await first_request(session)
        client = client_certificate_hash(session.stream.auth_context())
        binding = client if client or self._certificates_asked else None
        opened = open_request(envelope, self._now(), tls_binding=binding)
        signed = opened.signed
        request = opened.parse(event_hub_pb2.SubscribeRequest)
        head = self._head(request.channel)
        channel = head.channel
        session.expires_at = channel.admit(signed)
        session.identity = words_for(parse_identity(signed.identity))
        wanted = self._filter(request.filter)
        self._check_size(envelope)
        place = await find_place(request, channel)
        subscription = Subscription(
            session,
            head,
            self._consumers.past,
            self._consumers.turns,
            check_access=lambda: channel.admit(signed),
            wanted=wanted,
            payload=request.payload,
            block=place.block,
            transaction=place.transaction,
        )
        session.interests = lambda: (f"{channel.name} from block {place.block}: {wanted}",)
        session.blocks_behind = subscription.blocks_behind
        session.send(marshal(event_hub_pb2.Notice(position=place.position)))
        return subscription

    def _head(self, name: str) -> Head:
        head = self._heads.get(name)
        if head is None:
            raise StreamEnded(
                CloseReason.CHANNEL_UNKNOWN,
                grpc.StatusCode.NOT_FOUND,
                f"this hub has no channel {quoted(name)}: name one that it has, or add it to its "
                "sources",
            )
        if not head.channel.validated:
            raise StreamEnded(
                CloseReason.NOT_VALIDATED,
                grpc.StatusCode.FAILED_PRECONDITION,
                f"{name} comes from an orderer, which does not say which transactions are valid: "
                "take its blocks by Deliver, or give the hub a peer as source",
            )
        if not head.channel.ready:
            raise StreamEnded(
                CloseReason.HUB_BEHIND,
                grpc.StatusCode.UNAVAILABLE,
                f"{name} has not come from the source yet; try again",
            )
        return head

    def _check_size(self, envelope: common_pb2.Envelope) -> None:
        size, limit = envelope.ByteSize(), self._max_bytes + _REQUEST_BYTES
        if size > limit:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the request has {size} bytes, more than the {limit} that peer.events."
                "maxInterestBytes leaves for a filter and an identity: send a smaller one, or "
                "raise that",
            )

    def _filter(self, message: event_hub_pb2.Filter) -> EventFilter:
        try:
            return EventFilter.read(message, self._max_values, self._max_bytes)
        except TooManyValues as error:
            raise StreamEnded(
                CloseReason.TOO_MANY_INTERESTS,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{error}: ask for less, or raise peer.events.maxInterests",
            ) from error
        except TooLarge as error:
            raise StreamEnded(
                CloseReason.TOO_MANY_INTERESTS,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{error}: ask for less, or raise peer.events.maxInterestBytes",
            ) from error
        except UnfitFilter as error:
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error


def add_subscribe(server: GRPCServer, subscribe: Subscribe) -> None:
    """Serve `subscribe` on `server`."""
    server.add_message_stream(METHOD, subscribe)


# What ends a subscription, other than a fault.
_ENDS = (StatusError, IdentityError, PolicyError, BlockUnavailable)


def _end(error: Exception) -> StreamEnded:
    """Say why a subscription ends."""
    match error:
        case StreamEnded():
            return error
        case StatusError():
            return StreamEnded(CloseReason.MESSAGE_REFUSED, error.code, error.details)
        case BlockUnavailable():
            return StreamEnded(
                CloseReason.BLOCK_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE, f"{error}; try again"
            )
        case _:
            return StreamEnded(
                CloseReason.CHANNEL_FORBIDDEN, grpc.StatusCode.PERMISSION_DENIED, str(error)
            )
