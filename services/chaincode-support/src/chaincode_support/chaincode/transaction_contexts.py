"""The transactions that run on one chaincode stream.

Follows core/chaincode/transaction_contexts.go of Fabric 2.5, with the pair (channel, txid) as key
instead of the two glued together, a bound, and an outcome that the stream's end sets at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from chaincode_support.chaincode import metrics
from chaincode_support.chaincode.errors import (
    ChaincodeError,
    TooManyTransactions,
    TransactionRunning,
)
from chaincode_support.chaincode.queries import OpenQueries
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage


class Simulator(Protocol):
    """What a transaction needs of the ledger: one snapshot to read and a place for its writes."""

    def get_state(self, namespace: str, key: str, /) -> bytes | None: ...

    def put_state(self, namespace: str, key: str, value: bytes, /) -> None: ...

    def delete_state(self, namespace: str, key: str, /) -> None: ...

    def range(self, namespace: str, start: str, end: str, /) -> Iterator[tuple[str, bytes]]: ...


class TransactionContext:
    """One running transaction: its snapshot, its open queries, and its outcome to come."""

    __slots__ = ("channel", "namespace", "outcome", "queries", "simulator", "txid")

    def __init__(
        self,
        channel: str,
        txid: str,
        namespace: str,
        simulator: Simulator,
        outcome: asyncio.Future[ChaincodeMessage],
        queries: OpenQueries,
    ) -> None:
        self.channel = channel
        self.txid = txid
        self.namespace = namespace
        self.simulator = simulator
        self.outcome = outcome
        self.queries = queries

    def complete(self, message: ChaincodeMessage) -> None:
        """Set the outcome (COMPLETED or ERROR). The first one counts."""
        if not self.outcome.done():
            self.outcome.set_result(message)

    def fail(self, cause: ChaincodeError) -> None:
        """Set the outcome to an error. The first one counts."""
        if not self.outcome.done():
            self.outcome.set_exception(cause)


class TransactionContexts:
    """The running transactions by (channel, txid): at most `limit`, each with bounded queries."""

    def __init__(self, limit: int, query_limit: int) -> None:
        self._limit = limit
        self._query_limit = query_limit
        self._by_key: dict[tuple[str, str], TransactionContext] = {}
        # Shims of release 1.0 send no channel; they cannot tell two channels apart themselves.
        self._by_txid: dict[str, TransactionContext] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def create(
        self, channel: str, txid: str, namespace: str, simulator: Simulator
    ) -> TransactionContext:
        """Begin a transaction. To be called on the event loop; end it with `remove`.

        Raises TransactionRunning for a pair that runs already, TooManyTransactions at the limit.
        """
        key = (channel, txid)
        if key in self._by_key:
            raise TransactionRunning(
                f"transaction {txid} already runs on channel {channel}: wait for its end, or send "
                "a new proposal with a new nonce"
            )
        if len(self._by_key) >= self._limit:
            metrics.transactions_refused.inc()
            raise TooManyTransactions(
                f"RESOURCE_EXHAUSTED: chaincode {namespace} already runs {self._limit} "
                "transactions, the limit of chaincode.limits.transactions; try again later"
            )
        context = TransactionContext(
            channel,
            txid,
            namespace,
            simulator,
            asyncio.get_running_loop().create_future(),
            OpenQueries(self._query_limit),
        )
        self._by_key[key] = context
        self._by_txid.setdefault(txid, context)
        return context

    def get(self, channel: str, txid: str) -> TransactionContext | None:
        """The running transaction, or None; an empty channel means whichever has that txid."""
        if not channel:
            return self._by_txid.get(txid)
        return self._by_key.get((channel, txid))

    def remove(self, context: TransactionContext) -> None:
        """End a transaction: its queries are closed, and its txid is unknown from now on."""
        context.queries.close_all()
        del self._by_key[(context.channel, context.txid)]
        if self._by_txid.get(context.txid) is context:
            del self._by_txid[context.txid]

    def fail_all(self, cause: ChaincodeError) -> None:
        """Give every running transaction the same error as its outcome."""
        for context in list(self._by_key.values()):
            context.fail(cause)
