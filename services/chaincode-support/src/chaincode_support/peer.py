"""The peer put together from its parts: three listeners over its channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace

from chaincode_support.chain import Chain
from chaincode_support.chaincode.definitions import Definitions
from chaincode_support.chaincode.known_names import KnownNames
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.settings import StreamSettings
from chaincode_support.chaincode.support import ChaincodeSupport
from chaincode_support.channel import Channel
from chaincode_support.config import Config, startup_timeout
from chaincode_support.deliver import Deliver, Readable, add_peer_deliver
from chaincode_support.endorser.endorser import Endorser
from chaincode_support.launchers.external import ExternalLauncher
from chaincode_support.launchers.waiting import Waiting
from chaincode_support.material import Material
from chaincode_support.ordering.broadcast import Broadcast
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
        limits = config.peer.limits.concurrency
        self._chains = [Chain(name, config, material) for name in config.channel.names]
        channels = {chain.name: chain.channel for chain in self._chains}
        self._broadcast = Broadcast(
            {chain.name: chain.ordered for chain in self._chains},
            max_streams=config.orderer.limits.streams,
            pipeline=config.orderer.limits.stream_pipeline,
        )
        secure = _secure(config, material)
        chaincode_secure = _chaincode_secure(config, secure)
        transport = config.transport
        self.api = GRPCServer(
            config.peer.listen_address, _server_config(config, secure, transport.peer)
        )
        self.chaincode = GRPCServer(
            config.peer.chaincode_listen_address,
            _server_config(config, chaincode_secure, transport.chaincode),
        )
        self.orderer = GRPCServer(
            config.orderer.listen_address, _server_config(config, secure, transport.orderer)
        )
        organisation = material.msp()
        chaincodes = _chaincode_support(config, chaincode_secure, channels, organisation)
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

        def deliver(readable: Mapping[str, Readable]) -> Deliver:
            return Deliver(
                readable,
                mutual_tls=mutual,
                max_streams=limits.deliver_service,
                backlog=backlog,
            )

        # GRPCServer has the two methods of grpc.aio.Server that generated code calls.
        add_EndorserServicer_to_server(self._endorser, self.api)  # type: ignore[arg-type]
        committed = {name: Readable(channel, channel.ledger) for name, channel in channels.items()}
        add_peer_deliver(self.api, deliver(committed))
        self.chaincode.add_message_stream("/protos.ChaincodeSupport/Register", chaincodes.register)
        ordered = {chain.name: Readable(chain.channel, chain.ordering) for chain in self._chains}
        add_atomic_broadcast(self.orderer, self._broadcast, deliver(ordered))

    @property
    def servers(self) -> tuple[GRPCServer, ...]:
        """The listeners."""
        return self.api, self.chaincode, self.orderer

    async def start(self) -> None:
        """Catch up with the ordering, then serve.

        Raises CommitterStopped when a ledger cannot catch up, CommError for an address in use.
        """
        await asyncio.gather(*(chain.start() for chain in self._chains))
        for server in self.servers:
            await server.start()
        for chain in self._chains:
            chain.when_stopped(self._on_chain_stopped)
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
            "channels": {chain.name: chain.height for chain in self._chains},
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
        await asyncio.gather(*(chain.close() for chain in self._chains))

    def check_serving(self) -> None:
        """Raises NotServing unless all listeners serve."""
        if not self._serving:
            raise NotServing("the peer is not serving")

    def check_committing(self) -> None:
        """Raises CommitterStopped or CommitterFailing when a block could not be committed."""
        for chain in self._chains:
            chain.committer.check_health()

    def _on_chain_stopped(self) -> None:
        """Once nothing is committed on any channel, clients that ask for health go elsewhere."""
        if all(chain.stopped for chain in self._chains):
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


def _chaincode_secure(config: Config, secure: SecureServerConfig) -> SecureServerConfig:
    """The same for the chaincode listener, where chaincode may come without a certificate."""
    if config.chaincode.client_auth_required or not secure.require_client_certificate:
        return secure
    log.warning(
        "CHAINCODE NEEDS NO CLIENT CERTIFICATE: any process that reaches its listener can act as "
        "any chaincode that shows none; set chaincode.clientAuthRequired to true"
    )
    kind = config.transport.chaincode
    carried_by = config.transport.kind if kind == "inherit" else kind
    return replace(
        secure,
        require_client_certificate=False,
        # Whoever has one still shows it; grpcio cannot ask without requiring.
        request_client_certificate=carried_by == "native",
    )


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
            Waiting(registry, startup_timeout(config), chaincode.limits.transactions),
            config.peer.chaincode_address,
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
            check_certificate_name=chaincode.require_certificate_name
            and (secure.require_client_certificate or secure.request_client_certificate),
            certificate_optional=not secure.require_client_certificate,
        ),
        max_streams=chaincode.limits.streams,
        max_unregistered=chaincode.limits.unregistered,
    )
