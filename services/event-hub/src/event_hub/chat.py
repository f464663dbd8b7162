"""``protos.Events/Chat``: one handler per stream, from the first message to the last way out."""

from collections.abc import Iterable

import grpc

from event_hub import metrics
from event_hub.consumers import Consumers
from event_hub.interests import InterestError, Interests, TooManyInterests
from event_hub.outbox import CloseReason, Outbox
from event_hub.validation import Refused, Validator
from selvedge_common.comm import MessageStream, StatusError
from selvedge_common.logs import get_logger
from selvedge_protos.peer import events_pb2

log = get_logger("eventhub.chat")

METHOD = "/protos.Events/Chat"


class Chat:
    """Serves the streams of all consumers.

    Args:
        validator: decides whether to believe a message.
        interests: where registrations go.
        consumers: admits streams, and knows them until they have ended.
    """

    def __init__(
        self, validator: Validator, interests: Interests[Outbox], consumers: Consumers
    ) -> None:
        self._validator = validator
        self._interests = interests
        self._consumers = consumers

    async def __call__(self, stream: MessageStream) -> None:
        """Serve one stream until the consumer half-closes it, goes away or is refused.

        Raises:
            StatusError: the stream was not admitted.
        """
        outbox = self._consumers.admit(stream)
        try:
            await self._converse(stream, outbox)
        finally:
            self._interests.remove(outbox)
            self._consumers.leave(outbox)

    async def _converse(self, stream: MessageStream, outbox: Outbox) -> None:
        try:
            async for message in stream:
                self._answer(message, outbox)
        except StatusError as error:
            reason = CloseReason.MESSAGE_REFUSED
            if isinstance(error.__cause__, TooManyInterests):
                reason = CloseReason.TOO_MANY_INTERESTS
            log.warning("message refused", peer=stream.peer, reason=error.details)
            outbox.finish(reason, error.code, error.details)
        else:
            outbox.finish(CloseReason.HALF_CLOSED, grpc.StatusCode.OK)

    def _answer(self, message: bytes, outbox: Outbox) -> None:
        """Act on one message and echo its event, byte for byte, as the confirmation.

        An interest that cannot be registered does not keep the echo back: clients count themselves
        connected by it, and Fabric's hub echoes as well.
        """
        try:
            event, event_bytes = self._validator.validate(message, outbox.stream.auth_context())
        except Refused as refusal:
            metrics.REFUSED_MESSAGES.labels(check=refusal.check).inc()
            raise
        match event.WhichOneof("Event"):
            case "register":
                self._register(event.register.events, outbox)
            case "unregister":
                self._unregister(event.unregister.events, outbox)
            case None:
                pass
            case kind:
                metrics.REFUSED_MESSAGES.labels(check="type").inc()
                raise StatusError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"a client may send register and unregister events, and this one is a {kind}",
                )
        outbox.offer(event_bytes)

    def _register(self, interests: Iterable[events_pb2.Interest], outbox: Outbox) -> None:
        for interest in interests:
            try:
                topic = self._interests.register(outbox, interest)
            except InterestError as error:
                _count("register", error.result)
                log.info("interest not registered", peer=outbox.stream.peer, reason=str(error))
            except TooManyInterests as error:
                _count("register", "too_many")
                raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
            else:
                _count("register", "ok")
                log.debug("interest registered", peer=outbox.stream.peer, topic=str(topic))

    def _unregister(self, interests: Iterable[events_pb2.Interest], outbox: Outbox) -> None:
        for interest in interests:
            try:
                topic = self._interests.unregister(outbox, interest)
            except InterestError as error:
                _count("unregister", error.result)
                log.info("interest not unregistered", peer=outbox.stream.peer, reason=str(error))
            else:
                _count("unregister", "ok")
                log.debug("interest unregistered", peer=outbox.stream.peer, topic=str(topic))


def _count(operation: str, result: str) -> None:
    metrics.REGISTRATIONS.labels(operation=operation, result=result).inc()
