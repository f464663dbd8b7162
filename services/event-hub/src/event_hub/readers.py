"""Who may read which channel: its Readers policy, on top of what the hub asks of every client.

Fabric's hub asks for a member of the peer's organisation and tells it of every channel
(events/producer/handler.go of 1.2 says so itself). Where a channel's configuration is known here,
its Readers decide as well, as they do in Fabric's Deliver.

A consumer is judged once for each channel that it has an interest in, and again when it speaks by
another identity or the channel's configuration changes; an event costs nothing.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import grpc

from event_hub.channels.block import ChannelBlock
from event_hub.channels.channel import READERS, Channel
from event_hub.interests import Interests
from event_hub.outbox import Outbox
from event_hub.session import CloseReason, StreamEnded
from selvedge_common.logs import get_logger
from selvedge_common.msp import Identity, IdentityError, PolicyError, identify
from selvedge_common.protoutil.config_block import ChannelConfig

log = get_logger("eventhub.readers")


class Rights:
    """What one consumer may read, by the identity that signed its last message.

    A channel that it may not read is withheld from it. Where it asked for the channel by name its
    stream ends instead, since it would wait for nothing.

    Args:
        outbox: the consumer.
        channels: the channels that sources serve.
        interests: who wants what.
    """

    def __init__(
        self, outbox: Outbox, channels: Mapping[str, Channel], interests: Interests[Outbox]
    ) -> None:
        self._outbox = outbox
        self._channels = channels
        self._interests = interests
        self._reader: Identity | None = None
        # By channel, under which configuration it was judged, and why it may not read, if so.
        self._judged: dict[str, tuple[ChannelConfig | None, str]] = {}

    def speak(self, reader: Identity) -> None:
        """Take note of who signed the message that came. Raises StreamEnded, as `check` does."""
        if reader != self._reader:
            self._reader = reader
            for channel in self._judged:
                self._judge(channel)

    def consider(self, channels: Iterable[str]) -> None:
        """Withhold those of the channels that it may not read."""
        for channel in channels:
            if channel in self._channels and self._outdated(channel):
                self._judge(channel)

    def check(self, channel: str) -> None:
        """Return if it may read a channel that it asks for by name; harmless for any other name.

        Raises:
            StreamEnded: PERMISSION_DENIED, CHANNEL_FORBIDDEN: it may not.
        """
        self.consider((channel,))
        _, why = self._judged.get(channel, (None, ""))
        if why:
            raise StreamEnded(
                CloseReason.CHANNEL_FORBIDDEN,
                grpc.StatusCode.PERMISSION_DENIED,
                f"this client may not read the channel {channel}: {why}",
            )

    def review(self, channel: str) -> None:
        """Judge again, once the channel's configuration is another one."""
        if channel in self._judged and self._outdated(channel):
            try:
                self._judge(channel)
            except StreamEnded as end:
                self._outbox.close(end.reason, end.code, end.sentence)

    def _outdated(self, channel: str) -> bool:
        judged = self._judged.get(channel)
        return judged is None or judged[0] is not self._channels[channel].config

    def _judge(self, channel: str) -> None:
        assert self._reader is not None
        config = self._channels[channel].config
        _, before = self._judged.get(channel, (None, ""))
        why = _why_not(self._reader, config)
        self._judged[channel] = (config, why)
        if why:
            self._interests.withhold(self._outbox, channel)
        elif before:
            self._interests.release(self._outbox, channel)
        if why and self._named(channel):
            self.check(channel)

    def _named(self, channel: str) -> bool:
        """Whether it has asked for the channel by name before."""
        topics = self._interests.topics(self._outbox)
        return channel in self._outbox.replaying or any(t.channel == channel for t in topics)


class Readers:
    """The rights of all consumers, reviewed when a channel's configuration changes.

    Args:
        channels: the channels that sources serve.
        interests: who wants what.
    """

    def __init__(self, channels: Mapping[str, Channel], interests: Interests[Outbox]) -> None:
        self._channels = channels
        self._interests = interests
        self._open: dict[Outbox, Rights] = {}
        for channel in channels.values():
            self._watch(channel, channel.config)

    def admit(self, outbox: Outbox) -> Rights:
        """Give a new consumer its rights, until it leaves."""
        rights = self._open[outbox] = Rights(outbox, self._channels, self._interests)
        return rights

    def leave(self, outbox: Outbox) -> None:
        """Forget a consumer."""
        self._open.pop(outbox, None)

    def _watch(self, channel: Channel, known: ChannelConfig | None) -> None:
        channel.at_next_block(partial(self._review, channel, known))

    def _review(self, channel: Channel, known: ChannelConfig | None, _: ChannelBlock) -> None:
        if channel.config is not known:
            for rights in tuple(self._open.values()):
                rights.review(channel.name)
        self._watch(channel, channel.config)


def _why_not(reader: Identity, config: ChannelConfig | None) -> str:
    """Say why somebody may not read a channel of this configuration; nothing if they may.

    That it is a member of the hub's organisation, and has signed, was found out before.
    """
    if config is None:
        return ""
    try:
        identity = identify(reader.serialized, config.msps)
        if config.policies.satisfied_at(READERS, [identity], config.msps):
            return ""
    except (IdentityError, PolicyError) as error:
        return str(error)
    return f"{reader} does not satisfy the policy {READERS}; use an identity that does"
