"""What runs a chaincode's transactions: a stream that it opened, or a part of the peer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chaincode_support.chaincode.simulator import Simulator
from chaincode_support.chaincode.tally import Tally
from selvedge_protos.peer.chaincode_pb2 import ChaincodeInput
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage
from selvedge_protos.peer.proposal_pb2 import SignedProposal


@dataclass(frozen=True, slots=True)
class Transaction:
    """One call of a chaincode.

    Attributes:
        channel: where it runs; empty for a system chaincode that is asked about the peer.
        chaincode: the chaincode's name without a version.
        simulator: a snapshot and a place for writes, which stays the caller's to close; None where
            the executor does not simulate.
        creator: the serialized identity that signed the proposal.
        callers: who of this transaction waits for this call, as (channel, chaincode).
    """

    channel: str
    txid: str
    chaincode: str
    input: ChaincodeInput
    simulator: Simulator | None
    proposal: SignedProposal | None = None
    creator: bytes = b""
    callers: frozenset[tuple[str, str]] = frozenset()


class Executor(Protocol):
    """One of those that serve a chaincode's name, as the registry and its callers see it."""

    @property
    def name(self) -> str:
        """The chaincode's name, without a version."""

    @property
    def registered_name(self) -> str:
        """What it registered as."""

    @property
    def version(self) -> str:
        """What its endorsements name."""

    @property
    def peer(self) -> str:
        """Where it is, in gRPC's form."""

    @property
    def simulates(self) -> bool:
        """Whether it reads and writes state, and so needs a simulator."""

    @property
    def callable_by_chaincode(self) -> bool:
        """Whether chaincodes may call it, and not only proposals."""

    @property
    def certified(self) -> bool:
        """Whether a certificate proves its name, so that others of the name may serve beside it."""

    @property
    def available(self) -> bool:
        """Whether it can be given a transaction."""

    @property
    def responsive(self) -> bool:
        """Whether it answered what it was given, as far as is known."""

    @property
    def running(self) -> int:
        """How many transactions it runs."""

    @property
    def tally(self) -> Tally:
        """How its transactions went."""

    async def execute(self, transaction: Transaction) -> ChaincodeMessage:
        """Run a transaction: its COMPLETED or ERROR. Raises ChaincodeError."""
