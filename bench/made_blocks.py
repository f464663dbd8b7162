"""Blocks for a ledger: unsigned ones, to make it grow, and ones that stand every check."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from bench.client import CHANNEL, NAME
from chaincode_support.channel import Channel
from chaincode_support.ledger import CheckedTransaction
from selvedge_common.msp import Identity, SigningIdentity
from selvedge_common.protoutil.blocks import header_hash, new_block
from selvedge_common.protoutil.endorsements import create_proposal_response, create_transaction
from selvedge_common.protoutil.proposals import create_proposal, open_proposal, sign_proposal
from selvedge_common.protoutil.transactions import open_transaction
from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.rwset.kvrwset.kv_rwset_pb2 import KVRWSet, KVWrite
from selvedge_protos.peer import transaction_pb2
from selvedge_protos.peer.chaincode_pb2 import ChaincodeID
from selvedge_protos.peer.proposal_response_pb2 import Response

VALUE = 100
"""Bytes of a value that grew."""
WRITES, TRANSACTIONS = 100, 50
"""Keys of a transaction, and transactions of a block, of those that make it grow."""
_CHAINCODE = ChaincodeID(name=NAME, version="1.0")


@dataclass(frozen=True)
class Signature:
    """One of those that a committer verifies."""

    signer: Identity
    message: bytes
    signature: bytes

    def verify(self) -> None:
        """Raises BadSignature."""
        self.signer.verify(self.message, self.signature)


@dataclass(frozen=True)
class Block:
    """A block that has not been committed.

    Attributes:
        marshalled: as an ordering gives it.
        transactions: the signatures of each.
    """

    marshalled: bytes
    transactions: Sequence[Sequence[Signature]]


class Maker:
    """Makes blocks for a channel's ledger.

    Args:
        channel: the ledger has its block 0.
        endorser, client: who signs.
    """

    def __init__(self, channel: Channel, endorser: SigningIdentity, client: SigningIdentity):
        self._channel = channel
        self._ledger = channel.ledger
        self._endorser = endorser
        self._client = client
        self._random = random.Random(1)  # noqa: S311 - the same keys each time
        self.keys = 0
        """How many the state has: they end in a number from 0 on."""

    async def grow(self, keys: int) -> None:
        """Commit new keys, unsigned and unchecked, until there are so many."""
        while self.keys < keys:
            checked = list[CheckedTransaction]()
            while self.keys < keys and len(checked) < TRANSACTIONS:
                numbers = range(self.keys, min(self.keys + WRITES, keys))
                self.keys = numbers.stop
                checked.append(self._creation(numbers))
            envelopes = [rwset.SerializeToString() for each in checked for _, rwset in each.rwsets]
            block = new_block(self._ledger.height, self._ledger.last_hash, envelopes)
            await self._ledger.commit(block, checked)

    def make(self, count: int, transactions: int, size: int) -> Iterator[Block]:
        """The next blocks, of transactions that read a key and put so many bytes there.

        No two have the same key, or the later one would conflict.
        """
        height, last_hash = self._ledger.height, self._ledger.last_hash
        numbers = iter(self._random.sample(range(self.keys), count * transactions))
        for number in range(height, height + count):
            envelopes = [self._update(key(next(numbers)), size) for _ in range(transactions)]
            block = new_block(number, last_hash, envelopes)
            last_hash = header_hash(block.header)
            yield Block(block.SerializeToString(), [*map(self._signatures, envelopes)])

    def _creation(self, numbers: Iterable[int]) -> CheckedTransaction:
        writes = [KVWrite(key=key(number), value=bytes(VALUE)) for number in numbers]
        return CheckedTransaction(
            transaction_pb2.VALID,
            f"{self._random.getrandbits(256):064x}",
            common_pb2.ENDORSER_TRANSACTION,
            f"{NAME}:{_CHAINCODE.version}",
            [(NAME, KVRWSet(writes=writes))],
        )

    def _update(self, name: str, size: int) -> bytes:
        """A transaction as the endorser and a client make it, ready for ordering."""
        args = [b"update", name.encode()]
        proposal, txid = create_proposal(CHANNEL, NAME, args, self._client.serialized)
        with closing(self._ledger.simulator(txid, NAME)) as simulator:
            simulator.get_state(NAME, name)
            simulator.put_state(NAME, name, bytes(size))
            results = simulator.results()
        response = create_proposal_response(
            open_proposal(sign_proposal(proposal, self._client)),
            Response(status=200),
            results,
            b"",
            _CHAINCODE,
            self._endorser,
        )
        return create_transaction(proposal, [response], self._client).SerializeToString()

    def _signatures(self, envelope: bytes) -> list[Signature]:
        transaction = open_transaction(envelope)
        action = transaction.open_action()
        assert action is not None
        return [
            Signature(self._channel.identify(each.identity), each.message, each.signature)
            for each in (transaction.signed_data(), *action.endorsement_data())
        ]


def key(number: int) -> str:
    """The name of a key."""
    return f"key-{number:08}"
