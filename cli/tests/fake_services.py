"""A peer and an ordering that do what a test tells them to, on a real gRPC server with TLS."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from selvedge_cli.addresses import Addresses
from selvedge_cli.connection import Connection
from selvedge_cli.options import Settings
from selvedge_client import User
from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil import seek_request
from selvedge_common.protoutil.block_events import filtered_block
from selvedge_common.protoutil.blocks import header_hash, new_block
from selvedge_common.protoutil.endorsements import create_proposal_response
from selvedge_common.protoutil.metadata import set_validation_codes
from selvedge_common.protoutil.proposals import open_proposal
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2, ab_pb2_grpc
from selvedge_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    events_pb2,
    events_pb2_grpc,
    peer_pb2_grpc,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Requests: TypeAlias = AsyncIterator[common_pb2.Envelope]
Code: TypeAlias = transaction_pb2.TxValidationCode.ValueType


@dataclass
class Pair:
    """A certificate that is its own root, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def make_pair(name: str = "localhost") -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, key)


@dataclass
class Network:
    """One channel: proposals are endorsed, transactions ordered and, if `commits`, committed.

    Attributes:
        chaincode: gives the response to a call's arguments, and the event's name.
        commits: what to do with an ordered transaction: its validation code, or None to leave it.
        answers: whether Broadcast answers, and with which status.
        says: what it says with that.
        hanging: the calls that get no answer: "endorse", "order".
    """

    signer: SigningIdentity
    chaincode: Callable[[list[str]], tuple[proposal_response_pb2.Response, str]]
    commits: Code | None = transaction_pb2.VALID
    answers: common_pb2.Status.ValueType | None = common_pb2.SUCCESS
    says: str = "as told"
    hanging: set[str] = field(default_factory=set)
    blocks: list[common_pb2.Block] = field(default_factory=list)
    ordered: list[bytes] = field(default_factory=list)
    # Deliver streams that wait are cut after so many blocks, once for each entry.
    cuts: list[int] = field(default_factory=list)
    # What the ledger is from the first cut on, if it is another one.
    instead: list[common_pb2.Block] = field(default_factory=list)
    # A block that cannot be read.
    damaged: int | None = None
    deliver_streams: int = 0
    # What clients of the event hub registered for.
    registered: list[events_pb2.Interest] = field(default_factory=list)
    # With which metadata of ours the last one came.
    started: dict[str, str] = field(default_factory=dict)
    # With what the event hub ends its streams; without it they just end.
    farewell: str = ""
    grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def has(self, number: int) -> None:
        async with self.grown:
            await self.grown.wait_for(lambda: len(self.blocks) > number)

    async def commit(self, *envelopes: bytes, code: Code = transaction_pb2.VALID) -> None:
        # No two ledgers begin alike: a real genesis block holds a nonce.
        previous = header_hash(self.blocks[-1].header) if self.blocks else secrets.token_bytes(32)
        block = new_block(len(self.blocks), previous, list(envelopes))
        set_validation_codes(block, [code] * len(block.data.data))
        async with self.grown:
            self.blocks.append(block)
            self.grown.notify_all()


class Endorser(peer_pb2_grpc.EndorserServicer):
    def __init__(self, network: Network) -> None:
        self._network = network

    async def ProcessProposal(
        self, request: proposal_pb2.SignedProposal, context: object
    ) -> proposal_response_pb2.ProposalResponse:
        if "endorse" in self._network.hanging:
            await asyncio.Event().wait()
        proposal = open_proposal(request)
        arguments = [argument.decode() for argument in proposal.input.args]
        response, event = self._network.chaincode(arguments)
        if response.status >= 400:
            return proposal_response_pb2.ProposalResponse(response=response)
        set_ = chaincode_event_pb2.ChaincodeEvent(
            chaincode_id=proposal.chaincode, tx_id=proposal.txid, event_name=event, payload=b"{}"
        )
        return create_proposal_response(
            proposal,
            response,
            b"",
            set_.SerializeToString() if event else b"",
            chaincode_pb2.ChaincodeID(name=proposal.chaincode),
            self._network.signer,
        )


class Ordering(ab_pb2_grpc.AtomicBroadcastServicer):
    """orderer.AtomicBroadcast without its Deliver, which nobody here calls."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def Broadcast(
        self, requests: AsyncIterator[common_pb2.Envelope], context: Context
    ) -> AsyncIterator[ab_pb2.BroadcastResponse]:
        network = self._network
        async for envelope in requests:
            if "order" in network.hanging:
                await asyncio.Event().wait()
            if network.answers in (None, common_pb2.SUCCESS, common_pb2.INTERNAL_SERVER_ERROR):
                network.ordered.append(envelope.SerializeToString())
                if network.commits is not None:
                    await network.commit(network.ordered[-1], code=network.commits)
            if network.answers is None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")
            yield ab_pb2.BroadcastResponse(status=network.answers, info=network.says)


class Deliver(events_pb2_grpc.DeliverServicer):
    """protos.Deliver without private data."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def Deliver(
        self, requests: Requests, context: Context
    ) -> AsyncIterator[events_pb2.DeliverResponse]:
        async for block in self._blocks(requests, context):
            yield events_pb2.DeliverResponse(block=block)
        yield events_pb2.DeliverResponse(status=self._status)

    async def DeliverFiltered(
        self, requests: Requests, context: Context
    ) -> AsyncIterator[events_pb2.DeliverResponse]:
        async for block in self._blocks(requests, context):
            yield events_pb2.DeliverResponse(filtered_block=filtered_block(block))
        yield events_pb2.DeliverResponse(status=self._status)

    async def _blocks(
        self, requests: Requests, context: Context
    ) -> AsyncIterator[common_pb2.Block]:
        network = self._network
        opened = seek_request.open_seek(await anext(requests))
        request = opened.seek
        waits = request.behavior == ab_pb2.SeekInfo.BLOCK_UNTIL_READY
        network.deliver_streams += waits
        left = network.cuts.pop(0) if waits and network.cuts else -1
        if opened.channel_header.channel_id != "mychannel":
            self._status = common_pb2.NOT_FOUND
            return
        try:
            wanted = seek_request.resolve(request, len(network.blocks))
        except seek_request.SeekRefused as refused:
            self._status = refused.status
            return
        for number in range(wanted.start, wanted.stop + 1):
            await network.has(number)
            if number == network.damaged:
                self._status = common_pb2.INTERNAL_SERVER_ERROR
                return
            if left == 0:
                network.blocks = network.instead or network.blocks
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            yield network.blocks[number]
            left -= 1
        self._status = common_pb2.SUCCESS


class Hub(events_pb2_grpc.EventsServicer):
    """Events/Chat: tells of the blocks there are, then goes away."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def Chat(
        self, requests: AsyncIterator[events_pb2.SignedEvent], context: Context
    ) -> AsyncIterator[events_pb2.Event]:
        event = events_pb2.Event.FromString((await anext(requests)).eventBytes)
        yield events_pb2.Event(register=event.register)
        self._network.started = {
            key: str(value)
            for key, value in context.invocation_metadata() or ()
            if key.startswith("selvedge-")
        }
        self._network.registered += event.register.events
        for block in self._network.blocks:
            if event.register.events[0].event_type == events_pb2.BLOCK:
                yield events_pb2.Event(block=block)
        if self._network.farewell:
            await context.abort(grpc.StatusCode.UNAVAILABLE, self._network.farewell)


@asynccontextmanager
async def serving(
    network: Network, home: Path, *, trusted: bytes = b""
) -> AsyncIterator[Connection]:
    """Serve a network on a free port; gives a user's connection to it, who trusts its certificate
    or the one that is given."""
    server_pair = make_pair()
    credentials = grpc.ssl_server_credentials([(server_pair.key_pem, server_pair.certificate_pem)])
    server = grpc.aio.server()
    peer_pb2_grpc.add_EndorserServicer_to_server(Endorser(network), server)
    ab_pb2_grpc.add_AtomicBroadcastServicer_to_server(cast(Any, Ordering)(network), server)
    events_pb2_grpc.add_DeliverServicer_to_server(cast(Any, Deliver)(network), server)
    events_pb2_grpc.add_EventsServicer_to_server(cast(Any, Hub)(network), server)
    address = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
    await server.start()
    client = make_pair("user1")
    user = User(
        network.signer,
        trusted or server_pair.certificate_pem,
        client.certificate_pem,
        client.key_pem,
    )
    addresses = Addresses(peer=address, orderer=address, events=address)
    settings = Settings(home, addresses, "user1", "mychannel", as_json=False)
    async with Connection(user, settings) as connection:
        yield connection
    await server.stop(None)


def answering(
    payload: bytes = b"done", event: str = ""
) -> Callable[[list[str]], tuple[proposal_response_pb2.Response, str]]:
    """A chaincode that says the same to everything."""
    return lambda _: (proposal_response_pb2.Response(status=200, payload=payload), event)


def make_signer() -> SigningIdentity:
    pair = make_pair("user1")
    return SigningIdentity("Org1MSP", pair.certificate, pair.key)
