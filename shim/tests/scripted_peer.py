"""A peer that says what a test tells it to, on a real gRPC server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.queryresult import kv_query_result_pb2
from selvedge_protos.peer import (
    chaincode_pb2,
    chaincode_shim_pb2_grpc,
    proposal_pb2,
    proposal_response_pb2,
)
from selvedge_protos.peer import chaincode_shim_pb2 as wire
from selvedge_shim import Chaincode, Environment, serve

Message = wire.ChaincodeMessage
Context = grpc.aio.ServicerContext[Message, Message]


class Stream:
    """One chaincode's stream, from the peer's side."""

    def __init__(self, incoming: AsyncIterator[Message], context: Context) -> None:
        self._incoming = incoming
        self._context = context
        self.ended = asyncio.Event()

    async def receive(self) -> Message:
        return await anext(self._incoming)

    async def expect(self, kind: Message.Type.ValueType) -> Message:
        message = await self.receive()
        assert message.type == kind, f"{Message.Type.Name(message.type)}: {message.payload!r}"
        return message

    async def half_closed(self) -> bool:
        return await anext(self._incoming, None) is None

    async def completed(self) -> tuple[proposal_response_pb2.Response, Message]:
        message = await self.expect(Message.COMPLETED)
        return proposal_response_pb2.Response.FromString(message.payload), message

    async def send(
        self, kind: Message.Type.ValueType, payload: bytes = b"", txid: str = ""
    ) -> None:
        channel = "mychannel" if txid else ""
        await self._context.write(
            Message(type=kind, payload=payload, txid=txid, channel_id=channel)
        )

    async def register(self) -> chaincode_pb2.ChaincodeID:
        """Play the opening, up to READY."""
        name = chaincode_pb2.ChaincodeID.FromString((await self.expect(Message.REGISTER)).payload)
        await self.send(Message.REGISTERED)
        await self.send(Message.READY)
        return name

    async def transaction(
        self, *args: str, txid: str = "tx1", kind: Message.Type.ValueType = Message.TRANSACTION
    ) -> None:
        """Start a transaction, with the proposal that its client would have signed."""
        arguments = chaincode_pb2.ChaincodeInput(args=[argument.encode() for argument in args])
        await self._context.write(
            Message(
                type=kind,
                payload=arguments.SerializeToString(),
                txid=txid,
                channel_id="mychannel",
                proposal=signed_proposal(txid),
            )
        )

    def end(self) -> None:
        self.ended.set()


class Peer(chaincode_shim_pb2_grpc.ChaincodeSupportServicer):
    """Hands every stream that a chaincode opens to the test."""

    def __init__(self) -> None:
        self._streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.refusal: tuple[grpc.StatusCode, str] | None = None

    async def Register(  # type: ignore[override]
        self, request_iterator: AsyncIterator[Message], context: Context
    ) -> None:
        if self.refusal:
            code, details = self.refusal
            self.refusal = None
            await context.abort(code, details)
        stream = Stream(aiter(request_iterator), context)
        await self._streams.put(stream)
        await stream.ended.wait()

    async def accept(self) -> Stream:
        return await self._streams.get()


def signed_proposal(txid: str) -> proposal_pb2.SignedProposal:
    """A proposal with all that a stub reads from it."""
    channel_header = common_pb2.ChannelHeader(tx_id=txid, channel_id="mychannel")
    channel_header.timestamp.FromSeconds(1_000)
    header = common_pb2.Header(
        channel_header=channel_header.SerializeToString(),
        signature_header=common_pb2.SignatureHeader(creator=b"user1").SerializeToString(),
    )
    payload = proposal_pb2.ChaincodeProposalPayload(TransientMap={"secret": b"42"})
    proposal = proposal_pb2.Proposal(
        header=header.SerializeToString(), payload=payload.SerializeToString()
    )
    return proposal_pb2.SignedProposal(proposal_bytes=proposal.SerializeToString())


def page(keys: Sequence[str], *, has_more: bool) -> bytes:
    """A page of a range, each value the upper case of its key."""
    return rows({key: key.upper().encode() for key in keys}, has_more=has_more)


def rows(content: Mapping[str, bytes], *, has_more: bool) -> bytes:
    """A page of a range."""
    found = [kv_query_result_pb2.KV(key=key, value=value) for key, value in content.items()]
    results = [wire.QueryResultBytes(resultBytes=row.SerializeToString()) for row in found]
    return wire.QueryResponse(results=results, has_more=has_more, id="it1").SerializeToString()


@asynccontextmanager
async def listening(
    peer: Peer, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[str]:
    """Run a peer; gives its address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    chaincode_shim_pb2_grpc.add_ChaincodeSupportServicer_to_server(peer, server)
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def serving(chaincode: Chaincode, environment: Environment) -> AsyncIterator[asyncio.Event]:
    """Run a chaincode; gives the event that stops it."""
    stop = asyncio.Event()
    task = asyncio.create_task(serve(chaincode, environment, stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 5)


@asynccontextmanager
async def conversation(chaincode: Chaincode) -> AsyncIterator[Stream]:
    """A peer and a registered chaincode; gives the peer's side of their stream."""
    peer = Peer()
    async with listening(peer) as address, serving(chaincode, plaintext(address)):
        stream = await peer.accept()
        await stream.register()
        yield stream
        stream.end()


def plaintext(address: str) -> Environment:
    """The environment of a chaincode that dials without TLS."""
    return Environment("asset:1.0", address, tls=None, log_level=logging.DEBUG)
