"""``protos.Events/Chat``: one handler per stream, from the first message to the last way out."""

from collections import Counter
from collections.abc import Callable, Collection
from typing import Literal

import grpc

from event_hub import metrics
from event_hub.consumers import Consumers
from event_hub.interests import InterestError, Interests, TooManyInterests, Topic
from event_hub.outbox import CloseReason, Outbox
from event_hub.validation import Refused, Validator
from selvedge_common.comm import MessageStream, StatusError
from selvedge_common.logs import get_logger
from selvedge_protos.peer import events_pb2

log = get_logger("eventhub.chat")

METHOD = "/protos.Events/Chat"

Operation = Literal["register", "unregister"]


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
        self._refused: dict[Outbox, Counter[str]] = {}

    async def __call__(self, stream: MessageStream) -> None:
        """Serve one stream until the consumer half-closes it, goes away or is refused.

        Raises:
            StatusError: the stream was not admitted.
        """
        outbox = self._consumers.admit(stream)
        try:
            await self._converse(stream, outbox)
        finally:
            self._tell_refused(outbox)
            self._interests.remove(outbox)
            self._consumers.leave(outbox)

    async def _converse(self, stream: MessageStream, outbox: Outbox) -> None:
        try:
            async for message in stream:
                # The echo needs room like any event.
                if self._consumers.crowded(len(message)):
                    await self._consumers.make_room(len(message))
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
            checked = self._validator.validate(message, outbox.stream.auth_context())
        except Refused as refusal:
            metrics.REFUSED_MESSAGES.labels(check=refusal.check).inc()
            raise
        # As in Fabric, the stream lasts as long as the identity that spoke last.
        outbox.expires_at = checked.creator.expires_at
        event = checked.event
        match event.WhichOneof("Event"):
            case "register":
                register = self._interests.register
                self._change("register", register, event.register.events, outbox)
            case "unregister":
                unregister = self._interests.unregister
                self._change("unregister", unregister, event.unregister.events, outbox)
            case None:
                pass
            case kind:
                metrics.REFUSED_MESSAGES.labels(check="type").inc()
                raise StatusError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"a client may send register and unregister events, and this one is a {kind}",
                )
        outbox.offer(checked.event_bytes)

    def _change(
        self,
        operation: Operation,
        act: Callable[[Outbox, events_pb2.Interest], Topic],
        interests: Collection[events_pb2.Interest],
        outbox: Outbox,
    ) -> None:
        """Register or unregister the interests of one message, counted and logged as a whole.

        Raises:
            StatusError: there are more than a consumer may hold; caused by TooManyInterests.
        """
        results: Counter[str] = Counter()
        first = ""
        try:
            # Before the first one is looked at: refusing an interest takes time as well.
            self._interests.check_number(len(interests))
            for interest in interests:
                try:
                    topic = act(outbox, interest)
                except InterestError as error:
                    first = first or str(error)
                    results[error.result] += 1
                else:
                    results["ok"] += 1
                    log.debug(f"interest {operation}ed", peer=outbox.stream.peer, topic=str(topic))
        except TooManyInterests as error:
            results["too_many"] = len(interests) - results.total()
            raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
        finally:
            for result, number in results.items():
                metrics.REGISTRATIONS.labels(operation=operation, result=result).inc(number)
        refused = {result: number for result, number in results.items() if result != "ok"}
        if not refused:
            return
        # A client may go on for ever: the first message is told of, the others as a number.
        if outbox in self._refused:
            self._refused[outbox].update(refused)
        else:
            self._refused[outbox] = Counter()
            log.info(
                f"interests not {operation}ed",
                peer=outbox.stream.peer,
                refused=refused,
                first=first,
            )

    def _tell_refused(self, outbox: Outbox) -> None:
        """Log how many interests were refused after those that the log has already."""
        refused = self._refused.pop(outbox, None)
        if refused:
            log.info("more interests refused", peer=outbox.stream.peer, refused=dict(refused))
