"""Small clients of the wire, apart from our own command line."""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Self

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import load_pem_x509_certificate
from tests.e2e.stack import LISTENERS, Stack

from selvedge_common.msp import SigningIdentity, load_signing_identity
from selvedge_common.protoutil.endorsements import create_transaction
from selvedge_common.protoutil.proposals import create_proposal, sign_proposal
from selvedge_common.protoutil.seek_request import FOREVER, NEWEST, Position, seek_envelope
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2, ab_pb2_grpc
from selvedge_protos.peer import (
    events_pb2,
    events_pb2_grpc,
    peer_pb2_grpc,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

CHANNEL = "mychannel"
START_BLOCK = "selvedge-start-block"


def signer(stack: Stack, user: str) -> SigningIdentity:
    """A user's identity, able to sign."""
    return load_signing_identity(stack.home / "crypto" / "users" / user / "msp", "Org1MSP")


class Client:
    """An application that submits transactions and reads blocks, as one user.

    Args:
        stack: where.
        user: who.
        blocks: the listener that blocks are read from.
    """

    def __init__(self, stack: Stack, user: str = "user1", blocks: str = "peer") -> None:
        self.signer = signer(stack, user)
        certificate = (stack.user_tls(user) / "client.crt").read_bytes()
        self._binding = load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256())
        self._peer = stack.channel(LISTENERS["peer"][0], user)
        self._ordering = stack.channel(LISTENERS["ordering"][0], user)
        self._blocks = stack.channel(LISTENERS[blocks][0], user)
        self._endorser = peer_pb2_grpc.EndorserStub(self._peer)
        self._deliver = events_pb2_grpc.DeliverStub(self._blocks)
        self._broadcast = ab_pb2_grpc.AtomicBroadcastStub(self._ordering)

    def close(self) -> None:
        for channel in (self._peer, self._ordering, self._blocks):
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def propose(self, chaincode: str, *args: str) -> tuple[proposal_pb2.Proposal, str]:
        """A new proposal and its transaction id."""
        words = [word.encode() for word in args]
        return create_proposal(CHANNEL, chaincode, words, self.signer.serialized)

    def endorse(self, proposal: proposal_pb2.Proposal) -> proposal_response_pb2.ProposalResponse:
        """Have a proposal endorsed."""
        return self._endorser.ProcessProposal(
            sign_proposal(proposal, self.signer), timeout=15, wait_for_ready=True
        )

    def endorse_signed(
        self, signed: proposal_pb2.SignedProposal
    ) -> proposal_response_pb2.ProposalResponse:
        """Send a signed proposal as it is."""
        return self._endorser.ProcessProposal(signed, timeout=15, wait_for_ready=True)

    def transaction(self, chaincode: str, *args: str) -> tuple[common_pb2.Envelope, str]:
        """An endorsed transaction, ready for ordering."""
        proposal, txid = self.propose(chaincode, *args)
        response = self.endorse(proposal)
        assert response.response.status == 200, response.response.message
        return create_transaction(proposal, [response], self.signer), txid

    def broadcast(self, *envelopes: common_pb2.Envelope) -> list[ab_pb2.BroadcastResponse]:
        """Hand envelopes to ordering on one stream."""
        return list(self._broadcast.Broadcast(iter(envelopes), timeout=30, wait_for_ready=True))

    def submit(self, chaincode: str, *args: str) -> str:
        """Endorse and order; returns the transaction id once ordering said SUCCESS."""
        envelope, txid = self.transaction(chaincode, *args)
        (answer,) = self.broadcast(envelope)
        assert answer.status == common_pb2.SUCCESS, answer
        return txid

    def filtered_blocks(
        self, start: Position, stop: Position = FOREVER, timeout: float | None = 60
    ) -> Iterator[events_pb2.FilteredBlock]:
        """Filtered blocks from `start`; without `stop` it goes on as they come."""
        envelope = seek_envelope(
            CHANNEL, start, stop, ab_pb2.SeekInfo.BLOCK_UNTIL_READY, self.signer, self._binding
        )
        answers = self._deliver.DeliverFiltered(iter([envelope]), timeout=timeout)
        for answer in answers:
            if answer.WhichOneof("Type") == "status":
                assert answer.status == common_pb2.SUCCESS, answer
                return
            yield answer.filtered_block

    def committed(self, start: int, wanted: set[str]) -> dict[str, tuple[int, int]]:
        """Wait until all these transactions are in blocks from `start` on: block and code of each,
        and that each of them is there once."""
        found: dict[str, tuple[int, int]] = {}
        for block in self.filtered_blocks(start):
            for entry in block.filtered_transactions:
                if entry.txid in wanted:
                    assert entry.txid not in found, f"{entry.txid} was committed twice"
                    found[entry.txid] = (block.number, entry.tx_validation_code)
            if found.keys() == wanted:
                return found
        raise AssertionError(f"missing: {wanted - found.keys()}")

    def height(self) -> int:
        """The number of blocks of the channel."""
        (newest,) = self.filtered_blocks(NEWEST, NEWEST)
        return newest.number + 1


def of_events(block: events_pb2.FilteredBlock) -> list[str]:
    """The transactions of a block whose chaincode events have happened."""
    return [
        entry.txid
        for entry in block.filtered_transactions
        if entry.tx_validation_code == transaction_pb2.VALID
        and entry.transaction_actions.chaincode_actions
    ]


def interest(
    kind: "events_pb2.EventType.ValueType", chaincode: str = "", name: str = ""
) -> events_pb2.Interest:
    """An interest in a type of event, or in a chaincode's."""
    wish = events_pb2.Interest(event_type=kind)
    if chaincode:
        wish.chaincode_reg_info.CopyFrom(
            events_pb2.ChaincodeReg(chaincode_id=chaincode, event_name=name)
        )
    return wish


class ChatClient:
    """A client of Events/Chat that registers and collects what comes, on a thread of its own.

    Args:
        stack: where.
        interests: what it registers for.
        user: who.
        reading: whether it collects; otherwise what comes is there to be read.
        start_block: the block to begin with; None for what happens next.
    """

    def __init__(
        self,
        stack: Stack,
        interests: Sequence[events_pb2.Interest],
        user: str = "user1",
        reading: bool = True,
        start_block: int | None = None,
    ) -> None:
        self._signer = signer(stack, user)
        self._channel = stack.channel(LISTENERS["events"][0], user)
        self._outgoing: queue.SimpleQueue[events_pb2.SignedEvent | None] = queue.SimpleQueue()
        # The stubs know neither next() nor cancel() of a call.
        chat: Any = events_pb2_grpc.EventsStub(self._channel).Chat
        start = [] if start_block is None else [(START_BLOCK, f"{CHANNEL}={start_block}")]
        self._call = chat(iter(self._outgoing.get, None), wait_for_ready=True, metadata=start)
        self.events: queue.SimpleQueue[events_pb2.Event] = queue.SimpleQueue()
        self.send(events_pb2.Event(register=events_pb2.Register(events=interests)))
        self.echo = next(self._call)
        assert self.echo.WhichOneof("Event") == "register"
        if reading:
            threading.Thread(target=self._collect, daemon=True).start()

    def send(self, event: events_pb2.Event, tamper: bool = False) -> None:
        """Sign and send an event; `tamper` breaks the signature."""
        event.creator = self._signer.serialized
        content = event.SerializeToString()
        signature = self._signer.sign(content + b"!" if tamper else content)
        self._outgoing.put(events_pb2.SignedEvent(eventBytes=content, signature=signature))

    def next(self, timeout: float = 20) -> events_pb2.Event:
        """The next event."""
        return self.events.get(timeout=timeout)

    def half_close(self) -> grpc.StatusCode:
        """Say that no more will be sent; gives the status the stream ends with."""
        self._outgoing.put(None)
        return self.status()

    def status(self) -> grpc.StatusCode:
        """The status of the ended stream."""
        code: grpc.StatusCode = self._call.code()
        return code

    def details(self) -> str:
        """The sentence of the ended stream's status."""
        details: str = self._call.details()
        return details

    def stream(self) -> Iterator[events_pb2.Event]:
        """What comes until the stream ends, whatever its status."""
        with suppress(grpc.RpcError):
            yield from self._call

    def read_to_end(self) -> None:
        """Read on until the stream ends."""
        for _ in self.stream():
            pass

    def close(self) -> None:
        self._call.cancel()
        self._outgoing.put(None)
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _collect(self) -> None:
        for event in self.stream():
            self.events.put(event)
