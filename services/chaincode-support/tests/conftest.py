"""A peer's chaincode listener over real gRPC and a real ledger, and raw shims that dial it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from endorsing import Endorsing, StartEndorsing
from rawshim import CHANNEL, METHOD, PATIENCE, SETTINGS, Dial, Peer, RawShim, StartPeer
from testchannel import Network

from chaincode_support.chaincode.definitions import Definitions
from chaincode_support.chaincode.known_names import KnownNames
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.support import ChaincodeSupport
from chaincode_support.channel import Channel
from chaincode_support.endorser.endorser import Endorser
from chaincode_support.launchers.external import ExternalLauncher
from chaincode_support.launchers.waiting import Waiting
from chaincode_support.ledger import Ledger
from chaincode_support.ledger.ledger import DEFAULT_MAX_SIMULATIONS
from chaincode_support.system.channels import ReadableChannels
from chaincode_support.system.cscc import Cscc
from chaincode_support.system.executor import SystemExecutor
from chaincode_support.system.qscc import Qscc
from selvedge_common.comm import GRPCServer, ServerConfig
from selvedge_common.protoutil.config_block import open_config
from selvedge_protos.peer.peer_pb2_grpc import add_EndorserServicer_to_server
from selvedge_protos.peer.proposal_pb2 import SignedProposal
from selvedge_protos.peer.proposal_response_pb2 import ProposalResponse


@pytest.fixture
async def start_peer(tmp_path: Path) -> AsyncIterator[StartPeer]:
    """Starts plaintext peers; keyword arguments override SETTINGS, `server` the ServerConfig."""
    running: list[tuple[GRPCServer, Peer]] = []

    async def start(
        *,
        server: ServerConfig | None = None,
        startup_timeout: float = PATIENCE,
        max_streams: int = 10,
        max_unregistered: int = 10,
        max_replicas: int = 16,
        max_waiting: int = 100,
        names: KnownNames | None = None,
        init_required: Sequence[str] = (),
        channels: Mapping[str, Channel] | None = None,
        max_simulations: int = DEFAULT_MAX_SIMULATIONS,
        **overrides: Any,
    ) -> Peer:
        listener = GRPCServer("127.0.0.1:0", server or ServerConfig())
        registry = Registry(names or KnownNames(), max_replicas)
        support = ChaincodeSupport(
            registry,
            ExternalLauncher(
                registry, Waiting(registry, startup_timeout, max_waiting), listener.address
            ),
            Definitions(init_required),
            channels or {},
            replace(SETTINGS, **overrides),
            max_streams=max_streams,
            max_unregistered=max_unregistered,
        )
        listener.add_message_stream(METHOD, support.register)
        folder = tmp_path / str(len(running))
        ledger = Ledger.open(folder, CHANNEL, max_simulations=max_simulations)
        peer = Peer(listener.address, ledger, support)
        await listener.start()
        running.append((listener, peer))
        return peer

    yield start
    for listener, peer in running:
        await listener.stop(0)
        for simulator in peer.simulators:
            simulator.close()
        peer.ledger.close()


@pytest.fixture
async def peer(start_peer: StartPeer) -> Peer:
    return await start_peer()


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    channels: list[grpc.aio.Channel] = []

    async def open_stream(peer: Peer, name: str | None = None) -> RawShim:
        channel = grpc.aio.insecure_channel(peer.address)
        channels.append(channel)
        shim = RawShim(channel)
        if name is not None:
            await shim.register(name)
        return shim

    yield open_stream
    for channel in channels:
        await channel.close(None)


@pytest.fixture(scope="session")
def network() -> Network:
    return Network()


@pytest.fixture
async def start_endorsing(start_peer: StartPeer, network: Network) -> AsyncIterator[StartEndorsing]:
    """Starts endorsers; what else it is given is for the peer behind them."""
    servers: list[GRPCServer] = []
    clients: list[grpc.aio.Channel] = []

    async def start(*, max_proposals: int = 10, **overrides: Any) -> Endorsing:
        channels: dict[str, Channel] = {}
        peer = await start_peer(channels=channels, **overrides)
        configuration = open_config(network.genesis())
        channels[CHANNEL] = Channel(
            CHANNEL, peer.ledger, configuration.msps, configuration.policies
        )
        readable = ReadableChannels(channels)
        for system in (Qscc(readable), Cscc(readable, network.organisation.msp)):
            peer.registry.register(SystemExecutor(system))
        server = GRPCServer("127.0.0.1:0", ServerConfig())
        endorser = Endorser(
            channels,
            peer.support,
            network.peer,
            network.organisation.msp,
            max_proposals=max_proposals,
        )
        # GRPCServer has the two methods of grpc.aio.Server that generated code calls.
        add_EndorserServicer_to_server(endorser, server)  # type: ignore[arg-type]
        await server.start()
        servers.append(server)
        clients.append(grpc.aio.insecure_channel(server.address))
        process: Any = clients[-1].unary_unary(
            "/protos.Endorser/ProcessProposal",
            request_serializer=SignedProposal.SerializeToString,
            response_deserializer=ProposalResponse.FromString,
        )
        return Endorsing(network, peer, channels, endorser, process)

    yield start
    for client in clients:
        await client.close(None)
    for server in servers:
        await server.stop(0)


@pytest.fixture
async def endorsing(start_endorsing: StartEndorsing) -> Endorsing:
    return await start_endorsing()
