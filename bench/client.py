"""A user of the services: signs beforehand, then sends and receives bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.house import House
from bench.process import PATIENCE, BenchError
from bench.wire import call_all, pipeline, read
from selvedge_cli.chat import chaincode_interest
from selvedge_cli.connection import read_user
from selvedge_common import comm
from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil.endorsements import create_transaction
from selvedge_common.protoutil.proposals import create_proposal, sign_proposal
from selvedge_common.protoutil.seek_request import FOREVER, NEWEST, Position, seek_envelope
from selvedge_common.protoutil.wire import timestamp_of
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.peer import events_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2

CHANNEL = "mychannel"
NAME = "bench"
"""The measuring chaincode, bench/chaincode."""
IN_FLIGHT = 8
"""Proposals at a time where endorsing is only a preparation."""


@dataclass(frozen=True)
class Proposed:
    """A proposal, and its signed form as it is sent."""

    proposal: proposal_pb2.Proposal
    txid: str
    signed: bytes


@dataclass(frozen=True)
class Transaction:
    """An endorsed transaction as it is sent for ordering."""

    txid: str
    envelope: bytes


class Client:
    """The user `user1` of a house, with connections of its own for whatever it does."""

    def __init__(self, house: House) -> None:
        self._user = read_user(house.home / "crypto" / "users" / "user1")
        self._addresses = house.addresses
        self._channels = AsyncExitStack()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channels.aclose()

    async def channel(self, address: str) -> Any:
        """A connection that nobody shares, to any server that trusts the house's root."""
        channel = comm.channel(
            address,
            root_cas=self._user.tls_root,
            certificate=self._user.tls_certificate,
            key=self._user.tls_key,
            options=[("grpc.use_local_subchannel_pool", 1)],
        )
        await self._channels.enter_async_context(channel)
        async with asyncio.timeout(PATIENCE):
            await channel.channel_ready()
        return channel

    def propose(self, *words: object) -> Proposed:
        """A new signed proposal to call the measuring chaincode with these words."""
        return propose(self._user.signer, *words)

    async def endorser(self) -> Callable[[bytes], Any]:
        """ProcessProposal as a function of bytes."""
        channel = await self.channel(self._addresses.peer)
        call: Callable[[bytes], Any] = channel.unary_unary("/protos.Endorser/ProcessProposal")
        return call

    async def endorses(self) -> bool:
        """Whether the measuring chaincode is there."""
        endorse = await self.endorser()
        answer = await endorse(self.propose("noop").signed)
        response = proposal_response_pb2.ProposalResponse.FromString(answer)
        return response.response.status == 200

    async def transactions(self, calls: Iterable[Sequence[object]]) -> list[Transaction]:
        """Transactions of the measuring chaincode, endorsed and ready for ordering."""
        endorse = await self.endorser()
        proposed: dict[bytes, Proposed] = {}
        endorsed: list[Transaction] = []

        async def prepare(signed: bytes) -> bytes:
            answer: bytes = await endorse(signed)
            origin, response = proposed[signed], checked(answer)
            envelope = create_transaction(origin.proposal, [response], self._user.signer)
            endorsed.append(Transaction(origin.txid, envelope.SerializeToString()))
            return answer

        for words in calls:
            proposal = self.propose(*words)
            proposed[proposal.signed] = proposal
        await call_all(prepare, proposed, IN_FLIGHT)
        return endorsed

    async def ordering(self) -> Any:
        """An open Broadcast stream."""
        channel = await self.channel(self._addresses.orderer)
        return channel.stream_stream("/orderer.AtomicBroadcast/Broadcast")()

    def registration(self, chaincode: str = NAME) -> bytes:
        """The request to Chat for the events of a chaincode."""
        signer = self._user.signer
        event = events_pb2.Event(
            register=events_pb2.Register(events=[chaincode_interest(chaincode)]),
            creator=signer.serialized,
            timestamp=timestamp_of(),
            tls_cert_hash=self._user.tls_hash,
        ).SerializeToString()
        signed = events_pb2.SignedEvent(eventBytes=event, signature=signer.sign(event))
        return signed.SerializeToString()

    def seek(self, start: Position, stop: Position) -> bytes:
        """The request to Deliver for these blocks, also those that are not there yet."""
        return seek_envelope(
            *(CHANNEL, start, stop, ab_pb2.SeekInfo.BLOCK_UNTIL_READY),
            *(self._user.signer, self._user.tls_hash),
        ).SerializeToString()

    async def consumer(self) -> Any:
        """A Chat stream that the events of the measuring chaincode come on, registered."""
        channel = await self.channel(self._addresses.events)
        stream = channel.stream_stream("/protos.Events/Chat")()
        await stream.write(self.registration())
        echo = events_pb2.Event.FromString(await read(stream))
        assert echo.HasField("register"), echo
        return stream

    @asynccontextmanager
    async def commits(self) -> AsyncIterator[Commits]:
        """The blocks from now on."""
        channel = await self.channel(self._addresses.peer)
        stream = channel.stream_stream("/protos.Deliver/DeliverFiltered")()
        await stream.write(self.seek(NEWEST, FOREVER))
        await read(stream)  # the newest, which was there before
        try:
            yield Commits(stream)
        finally:
            stream.cancel()

    async def commit(self, transactions: Sequence[Transaction]) -> tuple[float, float]:
        """Order transactions at full speed and wait for their commit.

        Gives the seconds until the last one was ordered, and until the last one was committed.
        """
        ordering = await self.ordering()
        async with self.commits() as commits:
            started = time.perf_counter()
            waiting = asyncio.create_task(commits.all_of({each.txid for each in transactions}))
            seconds, answers = await pipeline(ordering, [each.envelope for each in transactions])
            for answer in answers:
                check_ordered(answer)
            async with asyncio.timeout(PATIENCE):
                seconds_to_commit = await waiting - started
        await ordering.done_writing()
        return seconds, seconds_to_commit


class Commits:
    """An open DeliverFiltered stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def next(self) -> list[str]:
        """The ids of the transactions of the next block. Raises as `committed`."""
        return committed(await read(self._stream))

    async def all_of(self, wanted: set[str]) -> float:
        """The moment when the last of these transactions was seen."""
        missing = set(wanted)
        while missing:
            missing.difference_update(await self.next())
        return time.perf_counter()


def propose(signer: SigningIdentity, *words: object) -> Proposed:
    """A new signed proposal to call the measuring chaincode with these words."""
    args = [str(word).encode() for word in words]
    proposal, txid = create_proposal(CHANNEL, NAME, args, signer.serialized)
    return Proposed(proposal, txid, sign_proposal(proposal, signer).SerializeToString())


def checked(answer: bytes) -> proposal_response_pb2.ProposalResponse:
    """A proposal's answer, which has to be an endorsement.

    Raises:
        BenchError: it is not.
    """
    response = proposal_response_pb2.ProposalResponse.FromString(answer)
    if response.response.status != 200:
        raise BenchError(f"a proposal was not endorsed: {response.response.message}")
    return response


def committed(answer: bytes) -> list[str]:
    """The ids of the transactions in what DeliverFiltered sends.

    Raises:
        BenchError: one of them is not valid.
    """
    response = events_pb2.DeliverResponse.FromString(answer)
    found = response.filtered_block.filtered_transactions
    for transaction in found:
        if transaction.tx_validation_code != transaction_pb2.VALID:
            raise BenchError(f"transaction {transaction.txid} is not valid: {transaction}")
    return [transaction.txid for transaction in found]


def told(event: bytes) -> str:
    """The id of the transaction that an event of Chat is of."""
    return events_pb2.Event.FromString(event).chaincode_event.tx_id


def check_ordered(answer: bytes) -> None:
    """See that the ordering took a transaction.

    Raises:
        BenchError: it did not.
    """
    response = ab_pb2.BroadcastResponse.FromString(answer)
    if response.status != common_pb2.SUCCESS:
        raise BenchError(f"a transaction was not ordered: {response.info}")
