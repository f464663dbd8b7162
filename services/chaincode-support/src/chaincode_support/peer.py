"""The peer put together from its parts: three listeners over one channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from chaincode_support.chaincode.definitions import Definitions
from chaincode_support.chaincode.known_names import KnownNames
from chaincode_support.chaincode.launcher import ExternalLauncher
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.settings import StreamSettings
from chaincode_support.chaincode.support import ChaincodeSupport
from chaincode_support.channel import Channel
from chaincode_support.config import Config, startup_timeout
from chaincode_support.deliver import Deliver, Readable, add_peer_deliver
from chaincode_support.endorser.endorser import Endorser
from chaincode_support.genesis import open_channel, open_ordering, verifying_threads
from chaincode_support.ledger.committer import Committer
from chaincode_support.ledger.validation import Validator
from chaincode_support.material import Material
from chaincode_support.ordering.broadcast import Broadcast, OrderedChannel
from chaincode_support.ordering.service import add_atomic_broadcast
from chaincode_support.system.channels import ReadableChannels
from chaincode_support.system.cscc import Cscc
from chaincode_support.system.executor import SystemExecutor
from chaincode_support.system.qscc import Qscc
from selvedge_common.comm import (
    Bounds,
    GRPCServer,
    SecureServerConfig,
    ServerConfig,
    StreamConfig,
    server_config,
)
from selvedge_common.config.sections import ListenerTransport
from selvedge_common.logs import get_logger
from selvedge_common.msp import MSP
from selvedge_common.protoutil.responses import Backlog
from selvedge_protos.peer.peer_pb2_grpc import add_EndorserServicer_to_server

log = get_logger("peer")

# Seconds in which the last answers may leave before streams that never end by themselves (of
# chaincodes and of readers of blocks) are cut.
_FAREWELL = 0.25


class NotServing(Exception):
    """The peer does not serve yet, or no longer."""


class Peer:
    """Endorser and Deliver, ChaincodeSupport, and AtomicBroadcast, each on its own listener.

    To be made on the running event loop; `close` ends everything it opened.

    Raises:
        LedgerError, OrderingError, ForeignVolume: the volume cannot be used.
        MSPConfigurationError, CommError, OSError: a certificate, key or address cannot be used.
    """

    def __init__(self, config: Config, material: Material) -> None:
        self._config = config
        self._serving = False
        self._committing: asyncio.Task[None] | None = None
        name, limits = config.channel.name, config.peer.limits.concurrency
        self._ordering = open_ordering(config, material)
        self._channel = channel = open_channel(config, material, self._ordering)
        self._validator = Validator(
            name, channel.msps, channel.application, verifying_threads(config)
        )
        self._committer = Committer(
            self._ordering,
            channel.ledger,
            self._validator,
            blocks_ahead=config.orderer.limits.blocks_ahead,
        )
        self._broadcast = Broadcast(
            {
                name: OrderedChannel(
                    channel,
                    self._ordering,
                    config.orderer.batch_size.absolute_max_bytes,
                    self._committer.check_committing,
                )
            },
            max_streams=config.orderer.limits.streams,
            pipeline=config.orderer.limits.stream_pipeline,
        )
        secure = _secure(config, material)
        transport = config.transport
        self.api = GRPCServer(
            config.peer.listen_address, _server_config(config, secure, transport.peer)
        )
        self.chaincode = GRPCServer(
            config.peer.chaincode_listen_address,
            _server_config(config, secure, transport.chaincode),
        )
        self.orderer = GRPCServer(
            config.orderer.listen_address, _server_config(config, secure, transport.orderer)
        )
        channels = {name: channel}
        organisation = material.msp()
        chaincodes = _chaincode_support(config, secure, channels, organisation)
        self._endorser = Endorser(
            channels,
            chaincodes,
            material.peer(),
            organisation,
            max_proposals=limits.endorser_service,
        )
        mutual = secure.require_client_certificate

        # On both listeners.
        backlog = Backlog(config.peer.limits.deliver_bytes, 2 * limits.deliver_service)

        def deliver(readable: Readable) -> Deliver:
            return Deliver(
                {name: readable},
                mutual_tls=mutual,
                max_streams=limits.deliver_service,
                backlog=backlog,
            )

        # GRPCServer has the two methods of grpc.aio.Server that generated code calls.
        add_EndorserServicer_to_server(self._endorser, self.api)  # type: ignore[arg-type]
        add_peer_deliver(self.api, deliver(Readable(channel, channel.ledger)))
        self.chaincode.add_message_stream("/protos.ChaincodeSupport/Register", chaincodes.register)
        add_atomic_broadcast(
            self.orderer, self._broadcast, deliver(Readable(channel, self._ordering))
        )

    @property
    def servers(self) -> tuple[GRPCServer, ...]:
        """The listeners."""
        return self.api, self.chaincode, self.orderer

    async def start(self) -> None:
        """Catch up with the ordering, then serve.

        Raises CommitterStopped when the ledger cannot catch up, CommError for an address in use.
        """
        self._committing = asyncio.create_task(self._committer.run())
        await self._catch_up(self._committing)
        for server in self.servers:
            await server.start()
        self._committing.add_done_callback(self._on_committing_ended)
        self._serving = True

    def describe(self) -> dict[str, object]:
        """What the line of readiness says."""
        return {
            "peer": self._config.peer.id,
            "api": self.api.address,
            "chaincode": self.chaincode.address,
            "orderer": self.orderer.address,
            "transport": {
                "peer": self.api.transport,
                "chaincode": self.chaincode.transport,
                "orderer": self.orderer.transport,
            },
            "channel": self._channel.name,
            "height": self._channel.ledger.height,
            "tls": self.api.tls_enabled,
        }

    async def drain(self) -> None:
        """Say that it serves no longer, and wait for the proposals in work, within the grace."""
        self._serving = False
        _say_not_serving(*self.servers)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.peer.grace_period):
                await self._endorser.drain()

    async def close(self) -> None:
        """Cut what is left, make durable what was taken, and close the files."""
        await asyncio.gather(*(server.stop(_FAREWELL) for server in self.servers))
        if self._committing is not None:
            self._committing.cancel()
            await asyncio.gather(self._committing, return_exceptions=True)
        await self._ordering.close()
        self._validator.close()
        self._channel.ledger.close()

    def check_serving(self) -> None:
        """Raises NotServing unless all listeners serve."""
        if not self._serving:
            raise NotServing("the peer is not serving")

    def check_committing(self) -> None:
        """Raises CommitterStopped or CommitterFailing when a block could not be committed."""
        self._committer.check_health()

    async def _catch_up(self, committing: asyncio.Task[None]) -> None:
        caught_up = asyncio.create_task(self._channel.ledger.wait_for(self._ordering.height))
        try:
            await asyncio.wait((committing, caught_up), return_when=asyncio.FIRST_COMPLETED)
            if committing.done():
                await committing
        finally:
            caught_up.cancel()

    def _on_committing_ended(self, committing: asyncio.Task[None]) -> None:
        """Nothing is committed any more: clients that ask for health go elsewhere."""
        if not committing.cancelled() and committing.exception() is not None:
            _say_not_serving(self.api, self.orderer)


def _say_not_serving(*servers: GRPCServer) -> None:
    for server in servers:
        for service in ("", *server.services):
            server.set_serving(service, False)


def _secure(config: Config, material: Material) -> SecureServerConfig:
    tls = config.peer.tls
    if not tls.enabled:
        log.warning(
            "TLS IS OFF: everything is sent in the clear, and any process that reaches the ports "
            "can act as any chaincode; set peer.tls.enabled to true"
        )
        return SecureServerConfig()
    if not tls.client_auth_required:
        log.warning(
            "CLIENT CERTIFICATES ARE NOT REQUIRED: any process that reaches the ports can act as "
            "any chaincode; set peer.tls.clientAuthRequired to true"
        )
    return material.server(tls)


def _server_config(
    config: Config, secure: SecureServerConfig, transport: ListenerTransport
) -> ServerConfig:
    peer = config.peer
    bounds = Bounds(
        max_receive_bytes=peer.max_recv_msg_size,
        max_send_bytes=peer.max_send_msg_size,
        # One client may use up the peer's own limits; those answer with a sentence.
        max_concurrent_streams=2
        * (peer.limits.concurrency.endorser_service + peer.limits.concurrency.deliver_service),
        stream=StreamConfig(max_pending=config.chaincode.limits.pending_bytes),
    )
    return server_config(config.transport, secure, bounds, keepalive=peer.keepalive, kind=transport)


def _chaincode_support(
    config: Config,
    secure: SecureServerConfig,
    channels: Mapping[str, Channel],
    organisation: MSP,
) -> ChaincodeSupport:
    chaincode = config.chaincode
    if startup_timeout(config) > chaincode.startup_timeout:
        log.warning(
            "chaincode.startuptimeout is too short for a chaincode to come back; using 5s",
            configured=chaincode.startup_timeout,
        )
    names = KnownNames(config.peer.file_system_path / "known-chaincodes")
    registry = Registry(names)
    readable = ReadableChannels(channels)
    for system in (Qscc(readable), Cscc(readable, organisation)):
        registry.register(SystemExecutor(system))
    params = chaincode.runtime_params
    return ChaincodeSupport(
        registry,
        ExternalLauncher(
            registry,
            startup_timeout(config),
            config.peer.chaincode_address,
            max_waiting=chaincode.limits.transactions,
        ),
        Definitions(chaincode.init_required),
        channels,
        StreamSettings(
            keepalive=chaincode.keepalive,
            register_timeout=chaincode.register_timeout,
            execute_timeout=chaincode.execute_timeout,
            max_transactions=chaincode.limits.transactions,
            max_queries=chaincode.limits.queries,
            max_page_rows=config.ledger.state.total_query_limit,
            max_write_batch=params.max_size_write_batch if params.use_write_batch else 0,
            max_multiple_keys=(
                params.max_size_get_multiple_keys if params.use_get_multiple_keys else 0
            ),
            # The rest is left for the answers to transactions that run already.
            max_pending=chaincode.limits.pending_bytes // 4 * 3,
            # Without client certificates there is nothing to compare a name with.
            require_certificate_name=(
                chaincode.require_certificate_name and secure.require_client_certificate
            ),
        ),
        max_streams=chaincode.limits.streams,
        max_unregistered=chaincode.limits.unregistered,
    )
