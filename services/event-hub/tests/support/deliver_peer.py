"""A peer, or an orderer, with ledgers in memory, for the hub to read from."""

import asyncio
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from organisation import Organisation

from selvedge_common.comm import (
    GRPCServer,
    MessageStream,
    MessageStreamHandler,
    SecureServerConfig,
    ServerConfig,
)
from selvedge_common.msp import SigningIdentity, identify
from selvedge_common.protoutil import blocks, endorsements, metadata, proposals, seek, seek_request
from selvedge_common.protoutil.config_block import Batch, genesis_block
from selvedge_common.protoutil.responses import Backlog, MakeResponse, Responses, block_response
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

CHANNEL = "mychannel"
BATCH = Batch(500, 10 << 20, 2 << 20, "5ms")
VALID = transaction_pb2.VALID


@dataclass
class Transaction:
    """A transaction for a block of a test."""

    envelope: bytes
    txid: str
    code: transaction_pb2.TxValidationCode.ValueType = VALID


class Ledger:
    """The blocks of a channel, in memory; a peer's Deliver serves them.

    Block 0 says whose members use the channel: those of `organisation`, and whose sign its blocks:
    `orderer`, one of the organisations in `configure`, or of `organisation`.
    """

    def __init__(self, organisation: Organisation, channel: str = CHANNEL) -> None:
        self.channel = channel
        self.orderer = organisation.identity("orderer", "orderer")
        self._organisation = organisation
        self._user = organisation.identity("user")
        self._peer = organisation.identity("peer", "peer")
        self._blocks: list[bytes] = []
        self._last = b""
        self._last_config = 0
        self._grown = asyncio.Condition()
        self.height = 0

    def held(self, number: int) -> bytes:
        return self._blocks[number]

    async def read(self, first: int, last: int, max_bytes: int, make: MakeResponse) -> list[bytes]:
        return [make(self._blocks[first])]

    def replace(self, number: int, block: bytes) -> None:
        self._blocks[number] = block

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
            self.channel, chaincode, [b"invoke"], self._user.serialized
        )
        events = b""
        if event is not None:
            events = chaincode_event_pb2.ChaincodeEvent(
                chaincode_id=chaincode, tx_id=txid, event_name=event, payload=payload
            ).SerializeToString()
        opened = proposals.open_proposal(proposals.sign_proposal(proposal, self._user))
        response = endorsements.create_proposal_response(
            opened,
            proposal_response_pb2.Response(status=200),
            b"read-write set",
            events,
            chaincode_pb2.ChaincodeID(name=chaincode),
            self._peer,
        )
        envelope = endorsements.create_transaction(proposal, [response], self._user)
        return Transaction(envelope.SerializeToString(), txid, code)

    async def commit(self, *committed: Transaction) -> common_pb2.Block:
        """Add a block; the first one is the channel's configuration."""
        if not self.height:
            return await self.configure([self._organisation], self.orderer)
        block = blocks.new_block(
            self.height, self._last, [transaction.envelope for transaction in committed]
        )
        metadata.set_validation_codes(block, [transaction.code for transaction in committed])
        blocks.sign_block(block, self.orderer, self._last_config)
        return await self.append(block)

    async def configure(
        self,
        organisations: Sequence[Organisation],
        orderer: SigningIdentity,
        orderers: Sequence[Organisation] | None = None,
    ) -> common_pb2.Block:
        """Add a block with the channel's configuration; from the next one on, `orderer` signs."""
        orgs = [each.msp.config() for each in organisations]
        ordering = None if orderers is None else [each.msp.config() for each in orderers]
        block = genesis_block(self.channel, orgs, ["localhost:7050"], BATCH, orderer_orgs=ordering)
        metadata.set_validation_codes(block, [VALID])
        if self.height:
            block.header.number = self._last_config = self.height
            block.header.previous_hash = self._last
            blocks.sign_block(block, self.orderer, self._last_config)
        self.orderer = orderer
        return await self.append(block)

    async def append(self, block: common_pb2.Block) -> common_pb2.Block:
        """Add a block as it is."""
        self._last = blocks.header_hash(block.header)
        self._blocks.append(block.SerializeToString())
        async with self._grown:
            self.height += 1
            self._grown.notify_all()
        return block


class Peer:
    """A peer that serves its ledgers over protos.Deliver with mutual TLS; or an orderer.

    `ledgers` are those of further channels, by name. `streams` counts, for each stream that was
    opened, the blocks it was sent. `instead`, if given, serves the streams instead of the ledgers.
    `members` are the organisations that may read; with `plaintext` there is no TLS.
    """

    def __init__(
        self,
        organisation: Organisation,
        ledger: Ledger,
        *ledgers: Ledger,
        kind: Literal["peer", "orderer"] = "peer",
        host: str = "127.0.0.1",
        plaintext: bool = False,
    ) -> None:
        self.ledger = ledger
        self.ledgers = {each.channel: each for each in ledgers}
        self.streams: list[int] = []
        self.instead: MessageStreamHandler | None = None
        self.members = [organisation]
        self._kind = kind
        self._plaintext = plaintext
        self._organisation = organisation
        self._address = f"{host}:0"
        self._server: GRPCServer | None = None

    @property
    def address(self) -> str:
        return self._address

    async def start(self) -> None:
        """Serve, at the same address as before if there was one."""
        certificate, key = self._organisation.tls_pair("peer")
        roots = tuple(member.tls.pem for member in self.members)
        mutual_tls = SecureServerConfig(
            use_tls=True,
            certificate=certificate,
            key=key,
            server_root_cas=(self._organisation.tls.pem,),
            client_root_cas=roots,
            require_client_certificate=True,
        )
        secure = SecureServerConfig() if self._plaintext else mutual_tls
        self._server = GRPCServer(self._address, ServerConfig(secure=secure))
        self._address = self._server.address
        services = {"peer": "protos.Deliver", "orderer": "orderer.AtomicBroadcast"}
        self._server.add_message_stream(f"/{services[self._kind]}/Deliver", self._deliver)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def _deliver(self, stream: MessageStream) -> None:
        if self.instead is not None:
            await self.instead(stream)
            return
        number = len(self.streams)
        self.streams.append(0)

        def respond(block: bytes) -> bytes:
            self.streams[number] += 1
            return block_response(block if self._kind == "peer" else _as_ordered(block))

        responses = {
            ledger.channel: Responses(ledger, respond, max_bytes=0)
            for ledger in (self.ledger, *self.ledgers.values())
        }
        await seek.deliver(
            stream,
            responses_of=responses.get,
            check_access=self._check_access,
            backlog=Backlog(1 << 30, 1),
            tls_binding=None
            if self._plaintext
            else seek.client_certificate_hash(stream.auth_context()),
        )

    def _check_access(self, request: seek_request.OpenedSeek) -> datetime.datetime:
        msps = {member.mspid: member.msp for member in self.members}
        identity = identify(request.signature_header.creator, msps)
        identity.verify(request.envelope.payload, request.envelope.signature)
        return identity.expires_at


def _as_ordered(block: bytes) -> bytes:
    """A block as an orderer has it: without the verdicts of peers."""
    ordered = common_pb2.Block.FromString(block)
    metadata.set_metadata(ordered, common_pb2.TRANSACTIONS_FILTER, b"")
    return ordered.SerializeToString()
