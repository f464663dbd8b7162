"""A peer's chaincode listener over real gRPC and a real ledger, and raw shims that dial it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from rawshim import CHANNEL, METHOD, PATIENCE, SETTINGS, Dial, Peer, RawShim, StartPeer

from chaincode_support.chaincode.definitions import Definitions
from chaincode_support.chaincode.known_names import KnownNames
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.support import ChaincodeSupport
from chaincode_support.channel import Channel
from chaincode_support.launchers.external import ExternalLauncher
from chaincode_support.launchers.waiting import Waiting
from chaincode_support.ledger import Ledger
from selvedge_common.comm import GRPCServer, ServerConfig


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
        max_waiting: int = 100,
        names: KnownNames | None = None,
        init_required: Sequence[str] = (),
        channels: Mapping[str, Channel] | None = None,
        **overrides: Any,
    ) -> Peer:
        listener = GRPCServer("127.0.0.1:0", server or ServerConfig())
        registry = Registry(names or KnownNames())
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
        peer = Peer(listener.address, Ledger.open(tmp_path / str(len(running)), CHANNEL), support)
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
