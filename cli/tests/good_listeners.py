"""Listeners as the services have them: mutual TLS of a home's root, health, chaincodes, and how
an event hub is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import grpc
import grpc.aio
from cli.tests.fake_services import Pair
from cli.tests.homes import Home
from google.protobuf.message import Message

from selvedge_common.comm import (
    GRPCServer,
    MessageStream,
    SecureServerConfig,
    ServerConfig,
    StatusError,
)
from selvedge_common.msp import ADMIN, MSP
from selvedge_common.protoutil.seek import client_certificate_hash
from selvedge_common.signed_requests import SignedRequests
from selvedge_protos.common import common_pb2
from selvedge_protos.selvedge.chaincode.v1 import chaincodes_pb2, chaincodes_pb2_grpc
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2

_Request = TypeVar("_Request", bound=Message)
Context = grpc.aio.ServicerContext[Any, Any]


@asynccontextmanager
async def serving(
    home: Home,
    add: Callable[[GRPCServer], None] = lambda _: None,
    *,
    transport: Literal["native", "grpcio"] = "native",
    pair: Pair | None = None,
) -> AsyncIterator[str]:
    """A server that demands certificates of the home's root; gives its address.

    Args:
        add: adds services to it.
        pair: what it presents, if not a good one.
    """
    issued = pair or home.tls.issue("service")
    secure = SecureServerConfig(
        use_tls=True,
        certificate=issued.certificate_pem,
        key=issued.key_pem,
        client_root_cas=(home.tls.pem,),
        require_client_certificate=True,
    )
    server = GRPCServer("127.0.0.1:0", ServerConfig(secure=secure, transport=transport))
    add(server)
    await server.start()
    try:
        yield f"localhost:{server.address.rpartition(':')[2]}"
    finally:
        await server.stop(0)


@dataclass
class Chaincodes(chaincodes_pb2_grpc.ChaincodesServicer):
    """A peer's chaincodes, told to whoever signs as a member, changed by who signs as an admin.

    Attributes:
        msp: the peer's organisation.
        known: what is told.
        installed: the packages that were.
        removed: the ids that were.
        refusal: what every call is answered, if anything.
    """

    msp: MSP
    known: list[chaincodes_pb2.Chaincode] = field(default_factory=list)
    installed: list[bytes] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    refusal: StatusError | None = None

    def add_to(self, server: GRPCServer) -> None:
        chaincodes_pb2_grpc.add_ChaincodesServicer_to_server(self, server)  # type: ignore[arg-type]

    async def List(
        self, request: common_pb2.Envelope, context: Context
    ) -> chaincodes_pb2.ListResponse:
        self._open(chaincodes_pb2.ListRequest, request, admin=False)
        return chaincodes_pb2.ListResponse(chaincodes=self.known)

    async def Install(
        self, request: common_pb2.Envelope, context: Context
    ) -> chaincodes_pb2.InstallResponse:
        opened = self._open(chaincodes_pb2.InstallRequest, request, admin=True)
        self.installed.append(opened.package)
        return chaincodes_pb2.InstallResponse(package_id="mycc:0123abcd", name="mycc")

    async def Remove(
        self, request: common_pb2.Envelope, context: Context
    ) -> chaincodes_pb2.RemoveResponse:
        opened = self._open(chaincodes_pb2.RemoveRequest, request, admin=True)
        self.removed.append(opened.package_id)
        return chaincodes_pb2.RemoveResponse()

    def _open(
        self, kind: type[_Request], envelope: common_pb2.Envelope, *, admin: bool
    ) -> _Request:
        payload = common_pb2.Payload.FromString(envelope.payload)
        channel = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        assert channel.type == common_pb2.PEER_ADMIN_OPERATION
        assert channel.HasField("timestamp")
        creator = common_pb2.SignatureHeader.FromString(payload.header.signature_header).creator
        signer = self.msp.deserialize(creator)
        self.msp.validate(signer)
        signer.verify(envelope.payload, envelope.signature)
        if self.refusal is not None:
            raise self.refusal
        if admin and not self.msp.has_role(signer, ADMIN):
            raise StatusError(grpc.StatusCode.PERMISSION_DENIED, f"{signer} is no administrator")
        return kind.FromString(payload.data)


@dataclass
class EventHub:
    """An event hub that tells its administrators how it is.

    Attributes:
        msp: its organisation.
        states: what is told, one after the other; then the stream ends.
        asked: what it was asked for.
        farewell: how the stream ends, if not well.
    """

    msp: MSP
    states: list[event_hub_pb2.HubState] = field(default_factory=list)
    asked: list[event_hub_pb2.WatchRequest] = field(default_factory=list)
    farewell: StatusError | None = None

    def add_to(self, server: GRPCServer) -> None:
        server.add_message_stream("/selvedge.eventhub.v1.EventHub/Watch", self._watch)

    async def _watch(self, stream: MessageStream) -> None:
        envelope = common_pb2.Envelope.FromString(await anext(aiter(stream)))
        requests = SignedRequests(self.msp, max_bytes=1 << 20, setting="")
        binding = client_certificate_hash(stream.auth_context())
        opened = requests.read(envelope, admin=True, tls_binding=binding)
        self.asked.append(opened.parse(event_hub_pb2.WatchRequest))
        for state in self.states:
            stream.send(state.SerializeToString())
        if self.farewell is not None:
            raise self.farewell
