"""The hub put together from its parts."""

import asyncio
from collections.abc import Mapping

from event_hub.channels.channel import Channel
from event_hub.chat import METHOD, Chat
from event_hub.config import Config, Source
from event_hub.consumers import Consumers
from event_hub.deliver import Deliver, add_deliver
from event_hub.hub_state import HubStates
from event_hub.interests import Interests
from event_hub.material import Material
from event_hub.outbox import Outbox
from event_hub.processor import Processor
from event_hub.producer import SERVICE as PRODUCER
from event_hub.producer import Producer, add_producer
from event_hub.sources.feed import Feed
from event_hub.subscriptions.service import SERVICE, Subscribe, add_subscribe
from event_hub.validation import ValidationConfig, Validator
from event_hub.watch import Watch, add_watch
from selvedge_common.comm import (
    MESSAGE_COST,
    Bounds,
    GRPCServer,
    SecureServerConfig,
    ServerConfig,
    StreamConfig,
    server_config,
)
from selvedge_common.logs import get_logger
from selvedge_common.signed_requests import SignedRequests

log = get_logger("eventhub")

# What a stream takes before events wait in the outbox: enough to keep the connection busy.
STREAM_WINDOW_BYTES = 256 * 1024


class NotServing(Exception):
    """The hub does not serve yet, or no longer."""


class Hub:
    """Serves ``protos.Events`` with the news of the channels of its sources.

    Args:
        config: the settings.
        material: the hub's certificates and keys, enrolled.

    Raises:
        CheckpointError: the position of an earlier run cannot be read.
        MaterialError: a file of certificates or keys cannot be used.
        CommError: the listener cannot be made of them, or at its address.
        MSPConfigurationError: the organisation's folder cannot be used.
    """

    def __init__(self, config: Config, material: Material) -> None:
        events = config.peer.events
        self._config = config
        self._material = material
        self._serving = False
        self._interests: Interests[Outbox] = Interests(
            events.max_interests, events.max_interest_bytes
        )
        self._consumers = Consumers(
            events.max_consumers, config.outbox, events.sendtimeout, events.outbox.total_bytes
        )
        self._processor = Processor(
            self._interests,
            self._consumers,
            events.buffersize,
            events.buffer_bytes,
            events.timeout,
        )
        self._feeds = {
            channel: self._feed(channel, key, source)
            for key, source in config.all_sources.items()
            for channel in source.channels
        }
        self.server = GRPCServer(events.address, self._server_config())
        self.server.add_message_stream(METHOD, self._chat())
        add_deliver(self.server, self._deliver())
        add_subscribe(self.server, self._subscribe())
        self._producers = self._producer()
        add_producer(self.server, self._producers)
        self._watchers = self._watch(self._producers)
        add_watch(self.server, self._watchers)

    async def run(self, shutdown: asyncio.Event, operations: str) -> None:
        """Serve until told to stop, then drain: clients get what waits for them, and a farewell.

        Args:
            shutdown: set when the hub is to stop.
            operations: where the operations endpoint is, for the log.
        """
        await self.server.start()
        async with asyncio.TaskGroup() as parts:
            sources = [parts.create_task(feed.run()) for feed in self._feeds.values()]
            others = [
                parts.create_task(part)
                for part in (
                    self._processor.run(),
                    self._consumers.watch(),
                    *(feed.keep_position() for feed in self._feeds.values()),
                    *(feed.read_history() for feed in self._feeds.values()),
                )
            ]
            self._serving = True
            log.info(
                "serving",
                hub=self._config.peer.id,
                events=self.server.address,
                transport=self.server.transport,
                operations=operations,
                channels=list(self._feeds),
                sources=[source.addresses for source in self._config.all_sources.values()],
            )
            await shutdown.wait()
            for source in sources:
                source.cancel()
            await self._drain()
            for part in others:
                part.cancel()

    def check_serving(self) -> None:
        """Raises NotServing unless clients are served."""
        if not self._serving:
            raise NotServing("the event listener is not serving")

    def check_sources(self) -> None:
        """Raises SourceUnfit while a source's blocks do not continue those that were read."""
        for feed in self._feeds.values():
            feed.check_source()

    def check_positions(self) -> None:
        """Raises CheckpointError while a position cannot be written."""
        for feed in self._feeds.values():
            feed.check_position()

    async def _drain(self) -> None:
        self._serving = False
        for service in ("", "protos.Events", "protos.Deliver", SERVICE, PRODUCER):
            self.server.set_serving(service, False)
        clock = asyncio.get_running_loop().time
        grace = self._config.peer.grace_period
        end = clock() + grace
        self._producers.farewell()
        # The rest of the time is for consumers, to take what they were given.
        await self._processor.drain(grace / 2)
        self._consumers.farewell()
        self._watchers.farewell()
        await self.server.stop(max(0.0, end - clock()))
        for feed in self._feeds.values():
            await feed.checkpoint.write()
        log.info(
            "stopped", heights={name: feed.channel.height for name, feed in self._feeds.items()}
        )

    def _server_config(self) -> ServerConfig:
        events = self._config.peer.events
        bounds = Bounds(
            max_receive_bytes=events.max_recv_msg_size,
            max_send_bytes=events.max_send_msg_size,
            receive_setting="peer.events.maxRecvMsgSize",
            send_setting="peer.events.maxSendMsgSize",
            max_concurrent_streams=events.max_concurrent_streams,
            stream=stream_config(self._config),
        )
        return server_config(
            self._config.transport,
            self._secure(),
            bounds,
            keepalive=events.keepalive,
            elsewhere={
                "protos.ChaincodeSupport": "chaincode-support's chaincode listener (port 7052)",
                "protos.Endorser": "chaincode-support's peer API (port 7051)",
                "orderer.AtomicBroadcast": "chaincode-support's ordering (port 7050)",
            },
        )

    def _secure(self) -> SecureServerConfig:
        tls = self._config.peer.tls
        if not tls.enabled:
            log.warning("TLS IS OFF: anybody on the network can read the events")
            return SecureServerConfig()
        if not tls.client_auth_required:
            log.warning("clients are not asked for a TLS certificate")
        return self._material.server(tls)

    def _chat(self) -> Chat:
        events = self._config.peer.events
        validator = Validator(
            self._material.msp(),
            ValidationConfig(
                events.timewindow, events.require_tls_binding, self._certificates_asked
            ),
        )
        return Chat(validator, self._interests, self._consumers, self._channels())

    def _producer(self) -> Producer:
        events = self._config.peer.events
        return Producer(
            self._processor,
            self._feeds,
            max_streams=events.max_producers,
            max_event_bytes=events.max_send_msg_size,
        )

    def _deliver(self) -> Deliver:
        tls, events = self._config.peer.tls, self._config.peer.events
        return Deliver(
            self._channels(),
            self._consumers,
            mutual_tls=tls.enabled and tls.client_auth_required,
            time_window=events.timewindow,
            max_bytes=events.max_send_msg_size,
        )

    def _subscribe(self) -> Subscribe:
        events = self._config.peer.events
        return Subscribe(
            self._channels(),
            self._consumers,
            max_values=events.max_interests,
            max_bytes=events.max_interest_bytes,
            certificates_asked=self._certificates_asked,
        )

    def _watch(self, producer: Producer) -> Watch:
        events = self._config.peer.events
        return Watch(
            SignedRequests(
                self._material.msp(),
                max_bytes=events.max_recv_msg_size,
                setting="peer.events.maxRecvMsgSize",
            ),
            HubStates(self._config.peer.id, self._channels(), self._consumers, producer),
            limit=events.max_watchers,
            send_timeout=events.sendtimeout,
            certificates_asked=self._certificates_asked,
        )

    @property
    def _certificates_asked(self) -> bool:
        tls = self._config.peer.tls
        return tls.enabled and (tls.client_auth_required or tls.client_auth_requested)

    def _channels(self) -> Mapping[str, Channel]:
        return {name: feed.channel for name, feed in self._feeds.items()}

    def _feed(self, channel: str, key: str, source: Source) -> Feed:
        return Feed(
            channel,
            key,
            source,
            self._config.peer.file_system_path / source.checkpoint,
            self._material,
            self._config.peer.events.recent_bytes,
            self._processor.put,
        )


def stream_config(config: Config) -> StreamConfig:
    """The bounds of a consumer's stream. It holds all of a full outbox, which goes there to end."""
    outbox = config.outbox
    # One event goes to a stream that is not full yet, whatever its size, and one may wait alone.
    in_stream = STREAM_WINDOW_BYTES + outbox.max_event_bytes
    in_outbox = max(outbox.max_bytes, outbox.max_event_bytes)
    # No event is empty, so the window holds at most as many as it has bytes.
    events = STREAM_WINDOW_BYTES + outbox.max_events + 1
    max_pending = in_stream + in_outbox + MESSAGE_COST * events
    return StreamConfig(
        high_mark=STREAM_WINDOW_BYTES,
        max_pending=max_pending,
        # Consumers bounds this itself, and says why, but for one consumer alone.
        max_pending_in_process=config.peer.events.outbox.total_bytes + max_pending,
        flush_timeout=config.peer.events.sendtimeout,
    )
