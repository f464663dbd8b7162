"""The transactions that run on one chaincode stream.

Follows core/chaincode/transaction_contexts.go of Fabric 2.5, with the pair (channel, txid) as key
instead of the two glued together, a bound, and an outcome that the stream's end sets at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from chaincode_support.chaincode import metrics
from chaincode_support.chaincode.errors import (
    ChaincodeError,
    TooManyTransactions,
    TransactionRunning,
)
from chaincode_support.chaincode.executor import Transaction
from chaincode_support.chaincode.queries import OpenQueries
from chaincode_support.chaincode.settings import StreamSettings
from chaincode_support.chaincode.simulator import Simulator
from selvedge_protos.peer.chaincode_pb2 import ChaincodeSpec
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage

Invoke = Callable[[Transaction, ChaincodeSpec], Awaitable[ChaincodeMessage]]
"""Calls a chaincode on behalf of a running transaction; raises ChaincodeError."""


class TransactionContext:
    """One running transaction: its snapshot, its open queries, and its outcome to come."""

    __slots__ = (
        "invoke",
        "max_answer",
        "namespace",
        "outcome",
        "queries",
        "request",
        "settings",
        "simulator",
        "transaction",
        "waits_for",
    )

    def __init__(
        self,
        transaction: Transaction,
        simulator: Simulator,
        settings: StreamSettings,
        invoke: Invoke,
        max_answer: int,
    ) -> None:
        self.transaction = transaction
        self.namespace = transaction.chaincode
        self.simulator = simulator
        self.settings = settings
        self.invoke = invoke
        self.max_answer = max_answer
        self.outcome: asyncio.Future[ChaincodeMessage] = asyncio.get_running_loop().create_future()
        self.queries = OpenQueries(settings.max_queries)
        # The request that is answered later than in the turn that brought it.
        self.request: asyncio.Task[None] | None = None
        # What that takes its time for, as a sentence names it.
        self.waits_for = ""

    def complete(self, message: ChaincodeMessage) -> None:
        """Set the outcome (COMPLETED or ERROR). The first one counts."""
        if not self.outcome.done():
            self.outcome.set_result(message)

    def fail(self, cause: ChaincodeError) -> None:
        """Set the outcome to an error. The first one counts."""
        if not self.outcome.done():
            self.outcome.set_exception(cause)

    def close(self) -> None:
        """End what it has open."""
        if self.request is not None:
            self.request.cancel()
        self.queries.close_all()


class TransactionContexts:
    """The running transactions by (channel, txid)."""

    def __init__(self, settings: StreamSettings, invoke: Invoke, max_answer: int) -> None:
        """`max_answer`: bytes of the largest message that the chaincode can be sent."""
        self._settings = settings
        self._invoke = invoke
        self._max_answer = max_answer
        self._by_key: dict[tuple[str, str], TransactionContext] = {}
        # Shims of release 1.0 send no channel; they cannot tell two channels apart themselves.
        self._by_txid: dict[str, TransactionContext] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def create(self, transaction: Transaction) -> TransactionContext:
        """Begin a transaction. To be called on the event loop; end it with `remove`.

        Raises TransactionRunning for a pair that runs already, TooManyTransactions at the limit.
        """
        key = (transaction.channel, transaction.txid)
        if key in self._by_key:
            raise TransactionRunning(
                f"transaction {transaction.txid} already runs on channel {transaction.channel}: "
                "wait for its end, or send a new proposal with a new nonce"
            )
        limit = self._settings.max_transactions
        if len(self._by_key) >= limit:
            metrics.transactions_refused.inc()
            raise TooManyTransactions(
                f"RESOURCE_EXHAUSTED: chaincode {transaction.chaincode} already runs {limit} "
                "transactions, the limit of chaincode.limits.transactions; try again later"
            )
        assert transaction.simulator is not None, "a stream's transactions are simulated"
        context = TransactionContext(
            transaction, transaction.simulator, self._settings, self._invoke, self._max_answer
        )
        self._by_key[key] = context
        self._by_txid.setdefault(transaction.txid, context)
        return context

    def get(self, channel: str, txid: str) -> TransactionContext | None:
        """The running transaction, or None; an empty channel means whichever has that txid."""
        if not channel:
            return self._by_txid.get(txid)
        return self._by_key.get((channel, txid))

    def remove(self, context: TransactionContext) -> None:
        """End a transaction: what it has open is closed, and its txid is unknown from now on."""
        context.close()
        txid = context.transaction.txid
        elsewhere = len(self._by_key) > len(self._by_txid)
        del self._by_key[(context.transaction.channel, txid)]
        if self._by_txid[txid] is context:
            del self._by_txid[txid]
            if elsewhere:  # perhaps this one, on another channel
                for other in self._by_key.values():
                    if other.transaction.txid == txid:
                        self._by_txid[txid] = other

    def fail_all(self, cause: ChaincodeError) -> None:
        """Give every running transaction the same error as its outcome."""
        for context in list(self._by_key.values()):
            context.fail(cause)
