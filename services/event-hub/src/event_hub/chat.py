"""``protos.Events/Chat``: one conversation a stream, from the first message to the last way out."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Literal

import grpc

from event_hub import metrics
from event_hub.channels.channel import Channel
from event_hub.consumers import Consumers
from event_hub.events import BLOCK, EVERY_CHANNEL, Topic
from event_hub.interests import InterestError, Interests, TooManyInterests, topic_of
from event_hub.outbox import Outbox
from event_hub.readers import Readers, Rights
from event_hub.replay import Replay, Sharing
from event_hub.session import CloseReason, StreamEnded, words_for
from event_hub.start_blocks import start_blocks
from event_hub.validation import Refused, Validator
from selvedge_common.comm import MessageStream
from selvedge_common.logs import get_logger
from selvedge_common.protoutil import seek
from selvedge_common.quoting import quoted
from selvedge_protos.peer import events_pb2

log = get_logger("eventhub.chat")

METHOD = "/protos.Events/Chat"

FAULT = "the event hub could not serve this client, by a fault of its own; connect again"


Operation = Literal["register", "unregister"]


class Chat:
    """Serves the streams of all consumers.

    Args:
        validator: decides whether to believe a message.
        interests: where registrations go.
        consumers: admits streams, and knows them until they have ended.
        channels: the channels that sources serve; others are known to producers only.
    """

    def __init__(
        self,
        validator: Validator,
        interests: Interests[Outbox],
        consumers: Consumers,
        channels: Mapping[str, Channel],
    ) -> None:
        self._validator = validator
        self._interests = interests
        self._consumers = consumers
        self._channels = channels
        self._readers = Readers(channels, interests)
        self._sharing = Sharing(interests, consumers.past, consumers.turns)

    async def __call__(self, stream: MessageStream) -> None:
        """Serve one stream until the consumer half-closes it, goes away or is refused.

        Raises:
            StatusError: the stream was not admitted.
        """
        outbox = self._consumers.admit(stream)
        rights = self._readers.admit(outbox)
        replays: list[Replay] = []
        conversation = Conversation(
            outbox, rights, replays, self._validator, self._interests, self._channels
        )
        silence = asyncio.get_running_loop().call_later(
            seek.FIRST_REQUEST_SECONDS, _end_silent, outbox
        )
        try:
            replays += self._replays(outbox, rights)
            await self._converse(conversation, outbox)
        except StreamEnded as end:
            log.warning("stream ended", reason=end.reason, peer=stream.peer, sentence=end.sentence)
            outbox.finish(end.reason, end.code, end.sentence)
        except Exception:
            log.exception("fault with a stream", peer=stream.peer)
            outbox.close(CloseReason.HUB_FAULT, grpc.StatusCode.INTERNAL, FAULT)
        else:
            outbox.finish(CloseReason.HALF_CLOSED, grpc.StatusCode.OK)
        finally:
            silence.cancel()
            conversation.tell_refused()
            for replay in replays:
                replay.stop()
            self._interests.remove(outbox)
            self._readers.leave(outbox)
            self._consumers.leave(outbox)

    async def _converse(self, conversation: "Conversation", outbox: Outbox) -> None:
        async for message in outbox:
            # The echo needs room like any event.
            if self._consumers.crowded(len(message)):
                await self._consumers.make_room(len(message))
            conversation.answer(message)

    def _replays(self, outbox: Outbox, rights: Rights) -> list[Replay]:
        """Make the replays that the call asks for.

        Raises:
            StreamEnded: it does not make sense, or a channel is not here.
        """
        starts = start_blocks(outbox.stream.invocation_metadata())
        for channel in starts:
            if channel not in self._channels:
                raise StreamEnded(
                    CloseReason.CHANNEL_UNKNOWN,
                    grpc.StatusCode.NOT_FOUND,
                    f"no source of this event hub serves the channel {quoted(channel)}, so it has "
                    "no past to begin with; name a channel of the hub",
                )
        return [
            Replay(self._channels[channel], start, outbox, rights, self._sharing)
            for channel, start in starts.items()
        ]


def _end_silent(outbox: Outbox) -> None:
    if not outbox.identity:
        outbox.close(
            CloseReason.NO_REQUEST,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"no signed message came within {seek.FIRST_REQUEST_SECONDS:g} s; open the stream when "
            "there is one to send",
        )


class Conversation:
    """What one consumer says, and what is answered.

    Args:
        outbox: the consumer's.
        rights: what it may read.
        replays: what it is to be told of the past, once it is registered.
        validator, interests, channels: as in Chat.
    """

    def __init__(
        self,
        outbox: Outbox,
        rights: Rights,
        replays: list[Replay],
        validator: Validator,
        interests: Interests[Outbox],
        channels: Mapping[str, Channel],
    ) -> None:
        self._outbox = outbox
        self._rights = rights
        self._replays = replays
        self._validator = validator
        self._interests = interests
        self._channels = channels
        # Interests that were refused after those of the first such message; None before that.
        self._refused: Counter[str] | None = None
        outbox.interests = lambda: map(str, interests.topics(outbox))
        outbox.blocks_behind = lambda: {
            replay.channel.name: replay.behind
            for replay in replays
            if replay.channel.name in outbox.replaying
        }

    def answer(self, message: bytes) -> None:
        """Act on one message and echo its event, byte for byte, as the confirmation.

        An interest that cannot be registered does not keep the echo back: clients count themselves
        connected by it, and Fabric's hub echoes as well.

        Raises:
            StreamEnded: the message was refused.
        """
        outbox = self._outbox
        try:
            checked = self._validator.validate(message, outbox.stream.auth_context())
            event = checked.event
            kind = event.WhichOneof("Event")
            if kind not in ("register", "unregister", None):
                raise Refused(
                    "type",
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"a client may send register and unregister events, and this one is a {kind}",
                )
        except Refused as refusal:
            metrics.REFUSED_MESSAGES.labels(check=refusal.check).inc()
            raise
        # As in Fabric, the stream lasts as long as the identity that spoke last.
        outbox.expires_at = checked.creator.expires_at
        outbox.identity = words_for(checked.creator)
        self._rights.speak(checked.creator)
        if kind == "register":
            self._change("register", self._register, event.register.events)
        elif kind == "unregister":
            self._change("unregister", self._unregister, event.unregister.events)
        outbox.offer(checked.event_bytes)
        for replay in self._replays:
            replay.go_on()

    def tell_refused(self) -> None:
        """Log how many interests were refused after those that the log has already."""
        if self._refused:
            log.info("more interests refused", peer=self._outbox.peer, refused=dict(self._refused))

    def _register(self, interest: events_pb2.Interest) -> Topic:
        topic = topic_of(interest)
        if topic.channel == EVERY_CHANNEL:
            self._rights.consider(self._channels)
        else:
            self._rights.check(topic.channel)
            self._check_validated(topic)
        return self._interests.register(self._outbox, topic)

    def _unregister(self, interest: events_pb2.Interest) -> Topic:
        return self._interests.unregister(self._outbox, topic_of(interest))

    def _check_validated(self, topic: Topic) -> None:
        channel = self._channels.get(topic.channel)
        if topic.type == BLOCK or channel is None or channel.validated:
            return
        raise StreamEnded(
            CloseReason.NOT_VALIDATED,
            grpc.StatusCode.FAILED_PRECONDITION,
            f"there is no {topic} here: the hub reads that channel from an orderer, and its blocks "
            "do not say which transactions are valid; register for BLOCK, or use a hub that reads "
            "the channel from a peer",
        )

    def _change(
        self,
        operation: Operation,
        act: Callable[[events_pb2.Interest], Topic],
        interests: Collection[events_pb2.Interest],
    ) -> None:
        """Register or unregister the interests of one message, counted and logged as a whole.

        Raises:
            StreamEnded: one of them ends the stream.
        """
        results: Counter[str] = Counter()
        first = ""
        try:
            # Before the first one is looked at: refusing an interest takes time as well.
            self._interests.check_number(len(interests))
            for interest in interests:
                try:
                    topic = act(interest)
                except InterestError as error:
                    first = first or str(error)
                    results[error.result] += 1
                else:
                    results["ok"] += 1
                    log.debug(f"interest {operation}ed", peer=self._outbox.peer, topic=str(topic))
        except TooManyInterests as error:
            results["too_many"] = len(interests) - results.total()
            raise StreamEnded(
                CloseReason.TOO_MANY_INTERESTS, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
            ) from error
        except StreamEnded as end:
            results[end.reason.lower()] = len(interests) - results.total()
            raise
        finally:
            for result, number in results.items():
                metrics.REGISTRATIONS.labels(operation=operation, result=result).inc(number)
        refused = {result: number for result, number in results.items() if result != "ok"}
        if not refused:
            return
        # A client may go on for ever: the first message is told of, the others as a number.
        if self._refused is None:
            self._refused = Counter()
            log.info(
                f"interests not {operation}ed",
                peer=self._outbox.peer,
                refused=refused,
                first=first,
            )
        else:
            self._refused.update(refused)
