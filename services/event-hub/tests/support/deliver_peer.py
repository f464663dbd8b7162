"""A peer with a ledger in memory, for the hub to read from."""

import asyncio
import datetime
from dataclasses import dataclass

from organisation import Organisation

from selvedge_common.comm import (
    GRPCServer,
    MessageStream,
    MessageStreamHandler,
    SecureServerConfig,
    ServerConfig,
)
from selvedge_common.protoutil import blocks, endorsements, metadata, proposals, seek, seek_request
from selvedge_common.protoutil.responses import Backlog, Responses, block_response
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

CHANNEL = "mychannel"
VALID = transaction_pb2.VALID


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
            CHANNEL, chaincode, [b"invoke"], self._user.serialized
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
        block = blocks.new_block(
            self.height, self._last, [transaction.envelope for transaction in committed]
        )
        metadata.set_validation_codes(block, [transaction.code for transaction in committed])
        self._last = blocks.header_hash(block.header)
        self._blocks.append(block.SerializeToString())
        async with self._grown:
            self.height += 1
            self._grown.notify_all()
        return block


class Peer:
    """A peer that serves its ledger over protos.Deliver with mutual TLS.

    `streams` counts, for each stream that was opened, the blocks it was sent. `instead`, if given,
    serves the streams instead of the ledger.
    """

    def __init__(self, organisation: Organisation, ledger: Ledger) -> None:
        self.ledger = ledger
        self.streams: list[int] = []
        self.instead: MessageStreamHandler | None = None
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
        if self.instead is not None:
            await self.instead(stream)
            return
        number = len(self.streams)
        self.streams.append(0)

        def respond(block: bytes) -> bytes:
            self.streams[number] += 1
            return block_response(block)

        responses = Responses(self.ledger, respond, max_bytes=0)

        await seek.deliver(
            stream,
            responses_of=lambda name: responses if name == CHANNEL else None,
            check_access=self._check_access,
            backlog=Backlog(1 << 30, 1),
            tls_binding=seek.client_certificate_hash(stream.auth_context()),
        )

    def _check_access(self, request: seek_request.OpenedSeek) -> datetime.datetime:
        identity = self._organisation.msp.deserialize(request.signature_header.creator)
        self._organisation.msp.validate(identity)
        identity.verify(request.envelope.payload, request.envelope.signature)
        return identity.expires_at
