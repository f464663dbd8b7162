"""The peer put together from its parts: three listeners over its channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from chaincode_support import listeners
from chaincode_support.admin.admin import Admin, add_admin
from chaincode_support.admin.chaincodes import Chaincodes, add_chaincodes
from chaincode_support.admin.signed_requests import signed_requests
from chaincode_support.chain import open_chains
from chaincode_support.config import Config
from chaincode_support.configured_chaincode import chaincode_support
from chaincode_support.deliver import Deliver, Readable, add_peer_deliver
from chaincode_support.endorser.endorser import Endorser
from chaincode_support.ledger.committer import CommitterStopped
from chaincode_support.material import Material
from chaincode_support.ordering.broadcast import Broadcast
from chaincode_support.ordering.service import add_atomic_broadcast
from selvedge_common.comm import GRPCServer
from selvedge_common.protoutil.responses import Backlog
from selvedge_protos.peer.peer_pb2_grpc import add_EndorserServicer_to_server

# Seconds in which the last answers may leave before streams that never end by themselves (of
# chaincodes and of readers of blocks) are cut.
_FAREWELL = 0.25


class NotServing(Exception):
    """The peer does not serve yet, or no longer."""


class ChannelsNotServed(Exception):
    """Some of the channels could not be opened; the message says which, why, and what to do."""


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
        self._chains, self._not_served = open_chains(config, material)
        channels = {chain.name: chain.channel for chain in self._chains}
        self._broadcast = Broadcast(
            {chain.name: chain.ordered for chain in self._chains},
            max_streams=config.orderer.limits.streams,
            pipeline=config.orderer.limits.stream_pipeline,
        )
        secure = listeners.secure(config, material)
        transport = config.transport
        chaincode_listener = listeners.listener(
            config, listeners.secure_chaincode(config, secure), transport.chaincode
        )
        self.api = GRPCServer(
            config.peer.listen_address, listeners.listener(config, secure, transport.peer)
        )
        self.chaincode = GRPCServer(config.peer.chaincode_listen_address, chaincode_listener)
        self.orderer = GRPCServer(
            config.orderer.listen_address, listeners.listener(config, secure, transport.orderer)
        )
        organisation = material.msp()
        self._chaincodes, self._launchers = chaincode_support(
            config, chaincode_listener, channels, organisation
        )
        self._endorser = Endorser(
            channels,
            self._chaincodes,
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
        committed = {
            chain.name: Readable(chain.channel, chain.committed_blocks) for chain in self._chains
        }
        add_peer_deliver(self.api, deliver(committed))
        requests = signed_requests(organisation, max_bytes=config.peer.limits.admin_request_bytes)
        add_admin(self.api, Admin(requests))
        add_chaincodes(self.api, Chaincodes(requests, self._launchers, self._chaincodes.describe))
        self.chaincode.add_message_stream(
            "/protos.ChaincodeSupport/Register", self._chaincodes.register
        )
        ordered = {
            chain.name: Readable(chain.channel, chain.ordered_blocks) for chain in self._chains
        }
        add_atomic_broadcast(self.orderer, self._broadcast, deliver(ordered))

    @property
    def servers(self) -> tuple[GRPCServer, ...]:
        """The listeners."""
        return self.api, self.chaincode, self.orderer

    async def start(self) -> None:
        """Catch up with the ordering, then serve.

        Raises CommitterStopped when no ledger can catch up, CommError for an address in use.
        """
        await self._catch_up()
        # Before somebody can call: what has a package is not unknown.
        await self._launchers.start(self._chaincodes.serve)
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
            **({"not_served": sorted(self._not_served)} if self._not_served else {}),
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
        await self._launchers.stop()
        await asyncio.gather(*(server.stop(_FAREWELL) for server in self.servers))
        await asyncio.gather(*(chain.close() for chain in self._chains))

    def check_serving(self) -> None:
        """Raises NotServing unless all listeners serve."""
        if not self._serving:
            raise NotServing("the peer is not serving")

    def check_committing(self) -> None:
        """Raises a LedgerError when a block could not be committed, or a channel is damaged."""
        for chain in self._chains:
            chain.check_health()

    def check_channels(self) -> None:
        """Raises ChannelsNotServed while there are some."""
        if self._not_served:
            raise ChannelsNotServed(
                " ".join(
                    f"Channel {name} is not served: {why}" for name, why in self._not_served.items()
                )
            )

    async def _catch_up(self) -> None:
        started = await asyncio.gather(
            *(chain.start() for chain in self._chains), return_exceptions=True
        )
        failures = [failure for failure in started if failure is not None]
        for failure in failures:
            # One that has stopped takes nothing, and says so; the others can be served.
            if len(failures) == len(started) or not isinstance(failure, CommitterStopped):
                raise failure

    def _on_chain_stopped(self) -> None:
        """Once nothing is committed on any channel, clients that ask for health go elsewhere."""
        if all(chain.stopped for chain in self._chains):
            _say_not_serving(self.api, self.orderer)


def _say_not_serving(*servers: GRPCServer) -> None:
    for server in servers:
        for service in ("", *server.services):
            server.set_serving(service, False)
