"""A hub, a peer to read from and clients, over real gRPC with TLS and real signatures."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import yaml
from deliver_peer import CHANNEL, Ledger, Peer
from organisation import MSPID, Organisation
from prometheus_client import REGISTRY

from event_hub import config as configuration
from event_hub.channels.channel import Channel
from event_hub.consumers import Consumers
from event_hub.hub import Hub
from event_hub.material import Material
from selvedge_common.comm import SecureServerConfig, channel
from selvedge_common.msp import SigningIdentity
from selvedge_protos.peer import events_pb2

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
PATIENCE = 10.0


def interest(
    kind: int, chaincode: str | None = None, name: str = "", on: str = ""
) -> events_pb2.Interest:
    made = events_pb2.Interest(event_type=events_pb2.EventType.ValueType(kind), chainID=on)
    if chaincode is not None:
        made.chaincode_reg_info.chaincode_id = chaincode
        made.chaincode_reg_info.event_name = name
    return made


def dialled(
    organisation: Organisation, address: str, *options: tuple[str, int], uri: str | None = None
) -> tuple[grpc.aio.Channel, bytes]:
    """A connection of a member of its own, and the hash of the certificate that it shows."""
    certificate, key = organisation.tls_pair("client", uri)
    opened = channel(
        address,
        root_cas=organisation.tls.pem,
        certificate=certificate,
        key=key,
        options=[("grpc.use_local_subchannel_pool", 1), *options],
    )
    return opened, hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.decode())).digest()


def listening(
    organisation: Organisation, *, client_certificates: bool = True
) -> SecureServerConfig:
    """TLS of a server of the organisation."""
    certificate, key = organisation.tls_pair("hub")
    return SecureServerConfig(
        use_tls=True,
        certificate=certificate,
        key=key,
        client_root_cas=(organisation.tls.pem,),
        require_client_certificate=client_certificates,
    )


async def next_message(call: Any) -> bytes:
    """What comes next by a call of raw messages."""
    async with asyncio.timeout(PATIENCE):
        data = await call.read()
    assert data is not EOF, f"the stream ended: {await call.details()}"
    assert isinstance(data, bytes)
    return data


async def end_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status of a call that the server ends; what comes before it is skipped."""
    async with asyncio.timeout(PATIENCE):
        with suppress(grpc.aio.AioRpcError):
            while await call.read() is not EOF:
                pass
        return await call.code(), await call.details()


class Client:
    """A client of the event hub that says exactly what it is told to."""

    def __init__(
        self,
        opened: grpc.aio.Channel,
        identity: SigningIdentity,
        tls_cert_hash: bytes,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.identity = identity
        self.tls_cert_hash = tls_cert_hash
        self._metadata = metadata
        self._channel = opened
        # The stubs of grpc.aio know neither raw messages nor requests that are written later.
        chat: Any = opened.stream_stream("/protos.Events/Chat")  # type: ignore[call-arg]
        self.call = chat(metadata=metadata)

    def another_stream(self) -> "Client":
        """Another stream on the same connection."""
        return Client(self._channel, self.identity, self.tls_cert_hash, self._metadata)

    def sign(self, event: events_pb2.Event) -> bytes:
        if not event.creator:
            event.creator = self.identity.serialized
        data = event.SerializeToString()
        return events_pb2.SignedEvent(
            eventBytes=data, signature=self.identity.sign(data)
        ).SerializeToString()

    async def say(self, event: events_pb2.Event | bytes) -> None:
        await self.call.write(event if isinstance(event, bytes) else self.sign(event))

    async def register(self, *interests: events_pb2.Interest) -> None:
        """Register, and see the registration echoed byte for byte."""
        await self.confirmed(events_pb2.Event(register=events_pb2.Register(events=interests)))

    async def unregister(self, *interests: events_pb2.Interest) -> None:
        await self.confirmed(events_pb2.Event(unregister=events_pb2.Unregister(events=interests)))

    async def confirmed(self, event: events_pb2.Event) -> None:
        await self.say(event)
        assert await self.hear_bytes() == event.SerializeToString()

    async def hear_bytes(self) -> bytes:
        return await next_message(self.call)

    async def hear(self) -> events_pb2.Event:
        return events_pb2.Event.FromString(await self.hear_bytes())

    async def refused(self) -> tuple[grpc.StatusCode, str]:
        """The status of a stream that the hub ends; what comes before it is skipped."""
        return await end_of(self.call)

    async def close(self) -> None:
        await self._channel.close(None)


@dataclass
class Running:
    """A hub that runs in the test's loop."""

    hub: Hub
    shutdown: asyncio.Event
    task: asyncio.Task[None]

    @property
    def address(self) -> str:
        return self.hub.server.address

    @property
    def consumers(self) -> Consumers:
        """Who is connected."""
        return self.hub._consumers

    def channel(self, name: str = CHANNEL) -> Channel:
        """A channel as the hub has it."""
        return self.hub._feeds[name].channel

    async def stop(self) -> None:
        self.shutdown.set()
        async with asyncio.timeout(PATIENCE):
            await self.task

    async def kill(self) -> None:
        """End it as a crash would: nothing is drained, nothing more is written."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.hub.server.stop(0)


@dataclass
class House:
    """An organisation, its peer, and whatever hubs and clients a test starts."""

    folder: Path
    organisation: Organisation
    ledger: Ledger
    peer: Peer
    _hubs: list[Running] = field(default_factory=list)
    _clients: list[Client] = field(default_factory=list)

    async def hub(self, *sources: Mapping[str, Any], **settings: str) -> Running:
        """Start a hub; settings are CORE_ variables without the prefix, `sources` further ones."""
        environ = {
            "CORE_PEER_EVENTS_ADDRESS": "127.0.0.1:0",
            "CORE_PEER_FILESYSTEMPATH": str(self.folder),
            "CORE_PEER_GRACEPERIOD": "2s",
            "CORE_SOURCE_ADDRESSES": self.peer.address,
            "CORE_SOURCE_RECONNECT_MAX": "100ms",
        } | {f"CORE_{name}": value for name, value in settings.items()}
        file = self.folder / "hub.yaml"
        file.write_text(yaml.safe_dump({"sources": list(sources)}))
        config = configuration.read(file, environ)
        hub = Hub(config, Material(self.folder, MSPID))
        shutdown = asyncio.Event()
        running = Running(hub, shutdown, asyncio.create_task(hub.run(shutdown, "none")))
        self._hubs.append(running)
        await eventually(lambda: _serves(hub))
        return running

    def client(
        self,
        hub: Running | str,
        identity: SigningIdentity | None = None,
        options: tuple[tuple[str, int], ...] = (),
        start: str | None = None,
    ) -> Client:
        """Connect a client.

        Args:
            hub: to which hub, or the address where it is reached.
            identity: who signs.
            options: of the gRPC channel.
            start: where to begin, as in "mychannel=17".
        """
        address = hub if isinstance(hub, str) else hub.address
        opened, tls_cert_hash = dialled(self.organisation, address, *options)
        signer = identity or self.organisation.identity("user")
        metadata = () if start is None else (("selvedge-start-block", start),)
        client = Client(opened, signer, tls_cert_hash, metadata)
        self._clients.append(client)
        return client

    async def end(self) -> None:
        for client in self._clients:
            await client.close()
        for running in self._hubs:
            if not running.task.done():
                await running.stop()
        await self.peer.stop()


def _serves(hub: Hub) -> bool:
    try:
        hub.check_serving()
    except Exception:
        return False
    return True


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def sample(name: str, **labels: str) -> float:
    """The value of a metric's sample now; 0 if there is none."""
    return REGISTRY.get_sample_value(name, labels) or 0.0
