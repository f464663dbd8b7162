"""A hub, a peer to read from and clients, over real gRPC with TLS and real signatures."""

import asyncio
import datetime
import hashlib
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from event_hub import config as configuration
from event_hub.hub import Hub
from event_hub.material import Material
from prometheus_client import REGISTRY
from selvedge_common.comm import (
    GRPCServer,
    MessageStream,
    SecureServerConfig,
    ServerConfig,
    channel,
)
from selvedge_common.msp import MSP, SigningIdentity
from selvedge_common.protoutil import blocks, proposals, seek, transactions
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    events_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
CHANNEL = "mychannel"
MSPID = "Org1MSP"
PATIENCE = 10.0
VALID = transaction_pb2.VALID


def pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Root:
    """A root that issues certificates."""

    def __init__(self, name: str) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = (
            self._builder(self._name, self._key.public_key(), 60)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, name: str, unit: str = "client", minutes: float = 30
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A certificate that ends in so many minutes, or ended as many ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        certificate = (
            self._builder(subject, key.public_key(), minutes)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate, key

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, minutes: float
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=2))
            .not_valid_after(now + datetime.timedelta(minutes=minutes))
        )


class Organisation:
    """An organisation with its roots for identities and for TLS."""

    def __init__(self, mspid: str = MSPID) -> None:
        self.mspid = mspid
        self.identities = Root(f"ca.{mspid}")
        self.tls = Root(f"tlsca.{mspid}")
        self.msp = MSP(mspid, [self.identities.certificate])

    def identity(self, name: str, unit: str = "client", minutes: float = 30) -> SigningIdentity:
        certificate, key = self.identities.issue(name, unit, minutes)
        return SigningIdentity(self.mspid, certificate, key)

    def tls_pair(self, name: str) -> tuple[bytes, bytes]:
        certificate, key = self.tls.issue(name)
        return certificate.public_bytes(serialization.Encoding.PEM), pem_key(key)

    def write_material(self, folder: Path) -> None:
        """What enrolment leaves in the folder of a service."""
        for name in ("server", "client"):
            certificate, key = self.tls_pair(f"event-hub-{name}")
            _write(folder / "tls" / f"{name}.crt", certificate)
            _write(folder / "tls" / f"{name}.key", key)
        _write(folder / "tls" / "ca.crt", self.tls.pem)
        signer, signing_key = self.identities.issue("event-hub", "peer")
        _write(folder / "msp/signcerts/cert.pem", signer.public_bytes(serialization.Encoding.PEM))
        _write(folder / "msp/keystore/key.pem", pem_key(signing_key))
        _write(folder / "msp/cacerts/ca.pem", self.identities.pem)
        _write(folder / "msp/tlscacerts/tlsca.pem", self.tls.pem)


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


@dataclass
class Transaction:
    """A transaction for a block of a test."""

    envelope: bytes
    txid: str
    code: transaction_pb2.TxValidationCode.ValueType = VALID


class Ledger:
    """The blocks of a channel, in memory; a peer's Deliver serves them."""

    def __init__(self, organisation: Organisation) -> None:
        self._user = organisation.identity("user")
        self._peer = organisation.identity("peer", "peer")
        self._blocks: list[bytes] = []
        self._last = b""
        self._grown = asyncio.Condition()
        self.height = 0

    def block(self, number: int) -> bytes:
        return self._blocks[number]

    async def wait_for(self, height: int) -> None:
        async with self._grown:
            await self._grown.wait_for(lambda: self.height >= height)

    def transaction(
        self,
        chaincode: str = "cc",
        event: str | None = "named",
        payload: bytes = b"payload",
        code: transaction_pb2.TxValidationCode.ValueType = VALID,
    ) -> Transaction:
        proposal, txid = proposals.create_proposal(
            CHANNEL, chaincode, [b"invoke"], self._user.serialized
        )
        events = b""
        if event is not None:
            events = chaincode_event_pb2.ChaincodeEvent(
                chaincode_id=chaincode, tx_id=txid, event_name=event, payload=payload
            ).SerializeToString()
        opened = proposals.open_proposal(proposals.sign_proposal(proposal, self._user))
        response = transactions.create_proposal_response(
            opened,
            proposal_response_pb2.Response(status=200),
            b"read-write set",
            events,
            chaincode_pb2.ChaincodeID(name=chaincode),
            self._peer,
        )
        envelope = transactions.create_transaction(proposal, [response], self._user)
        return Transaction(envelope.SerializeToString(), txid, code)

    async def commit(self, *committed: Transaction) -> common_pb2.Block:
        block = blocks.new_block(
            self.height, self._last, [transaction.envelope for transaction in committed]
        )
        blocks.set_validation_codes(block, [transaction.code for transaction in committed])
        self._last = blocks.header_hash(block.header)
        self._blocks.append(block.SerializeToString())
        async with self._grown:
            self.height += 1
            self._grown.notify_all()
        return block


class Peer:
    """A peer that serves its ledger over protos.Deliver with mutual TLS."""

    def __init__(self, organisation: Organisation, ledger: Ledger) -> None:
        self.ledger = ledger
        self.served = 0
        self._organisation = organisation
        self._address = "127.0.0.1:0"
        self._server: GRPCServer | None = None

    @property
    def address(self) -> str:
        return self._address

    async def start(self) -> None:
        """Serve, at the same address as before if there was one."""
        certificate, key = self._organisation.tls_pair("peer")
        root = self._organisation.tls.pem
        self._server = GRPCServer(
            self._address,
            ServerConfig(
                secure=SecureServerConfig(
                    use_tls=True,
                    certificate=certificate,
                    key=key,
                    server_root_cas=(root,),
                    client_root_cas=(root,),
                    require_client_certificate=True,
                )
            ),
        )
        self._address = self._server.address
        self._server.add_message_stream("/protos.Deliver/Deliver", self._deliver)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def _deliver(self, stream: MessageStream) -> None:
        await seek.deliver(
            stream,
            source_of=lambda name: self.ledger if name == CHANNEL else None,
            check_access=self._check_access,
            make_response=self._respond,
            tls_binding=seek.client_certificate_hash(stream.auth_context()),
        )

    def _check_access(self, request: seek.OpenedSeek) -> datetime.datetime:
        identity = self._organisation.msp.deserialize(request.signature_header.creator)
        self._organisation.msp.validate(identity)
        identity.verify(request.envelope.payload, request.envelope.signature)
        return identity.expires_at

    def _respond(self, block: bytes) -> bytes:
        self.served += 1
        return seek.block_response(block)


def interest(
    kind: int, chaincode: str | None = None, name: str = "", on: str = ""
) -> events_pb2.Interest:
    made = events_pb2.Interest(event_type=events_pb2.EventType.ValueType(kind), chainID=on)
    if chaincode is not None:
        made.chaincode_reg_info.chaincode_id = chaincode
        made.chaincode_reg_info.event_name = name
    return made


class Client:
    """A client of the event hub that says exactly what it is told to."""

    def __init__(self, opened: grpc.aio.Channel, identity: SigningIdentity, tls: bytes) -> None:
        self.identity = identity
        self.tls_cert_hash = hashlib.sha256(ssl.PEM_cert_to_DER_cert(tls.decode())).digest()
        self._channel = opened
        # The stubs of grpc.aio know neither raw messages nor requests that are written later.
        self.call: Any = opened.stream_stream("/protos.Events/Chat")()  # type: ignore[call-arg]

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
        async with asyncio.timeout(PATIENCE):
            data = await self.call.read()
        assert data is not EOF, f"the stream ended: {await self.call.details()}"
        assert isinstance(data, bytes)
        return data

    async def hear(self) -> events_pb2.Event:
        return events_pb2.Event.FromString(await self.hear_bytes())

    async def refused(self) -> tuple[grpc.StatusCode, str]:
        """The status of a stream that the hub ends; what comes before it is skipped."""
        async with asyncio.timeout(PATIENCE):
            try:
                while await self.call.read() is not EOF:
                    pass
            except grpc.aio.AioRpcError:
                pass
            return await self.call.code(), await self.call.details()

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

    async def hub(self, **settings: str) -> Running:
        """Start a hub; settings are CORE_ variables without the prefix."""
        environ = {
            "CORE_PEER_EVENTS_ADDRESS": "127.0.0.1:0",
            "CORE_PEER_FILESYSTEMPATH": str(self.folder),
            "CORE_PEER_GRACEPERIOD": "2s",
            "CORE_SOURCE_ADDRESSES": self.peer.address,
            "CORE_SOURCE_RECONNECT_MAX": "100ms",
        } | {f"CORE_{name}": value for name, value in settings.items()}
        config = configuration.read(None, environ)
        hub = Hub(config, Material(self.folder, MSPID))
        shutdown = asyncio.Event()
        running = Running(hub, shutdown, asyncio.create_task(hub.run(shutdown, "none")))
        self._hubs.append(running)
        await eventually(lambda: _serves(hub))
        return running

    def client(
        self,
        hub: Running,
        identity: SigningIdentity | None = None,
        options: tuple[tuple[str, int], ...] = (),
    ) -> Client:
        certificate, key = self.organisation.tls_pair("client")
        opened = channel(
            hub.address,
            root_cas=self.organisation.tls.pem,
            certificate=certificate,
            key=key,
            options=[("grpc.use_local_subchannel_pool", 1), *options],
        )
        client = Client(opened, identity or self.organisation.identity("user"), certificate)
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
