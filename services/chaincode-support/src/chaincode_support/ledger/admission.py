"""Which transactions of a block are valid, as far as it takes the ledger to know.

Follows release 2.5 in what is judged by which state. By the one before the block: duplicates and
endorsements (core/committer/txvalidator/v20). By the one that earlier valid transactions of the
block led to: conflicts (core/ledger/kvledger/txmgmt/validation).
"""

import sqlite3
from collections.abc import Callable, Sequence

from chaincode_support.ledger import state
from chaincode_support.ledger.conflicts import check_conflicts
from chaincode_support.ledger.endorsements import EndorsementChecks
from chaincode_support.ledger.read_write_set import Version
from chaincode_support.ledger.rejection import log_rejection
from chaincode_support.ledger.transaction import CheckedTransaction
from selvedge_common.protoutil.errors import MalformedTransaction, ValidationCode
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import transaction_pb2

VALID = transaction_pb2.VALID
TARGET_CHAIN_NOT_FOUND = transaction_pb2.TARGET_CHAIN_NOT_FOUND


class Admission:
    """Judges one block inside the SQLite transaction that commits it."""

    def __init__(self, connection: sqlite3.Connection, channel: str, number: int) -> None:
        self._connection = connection
        self._channel = channel
        self._number = number

    def admit(self, checked: Sequence[CheckedTransaction]) -> list[ValidationCode]:
        """The final code of each transaction; what the valid ones write is in the state then.

        Raises sqlite3.Error and MemoryError, for which no transaction is to blame.
        """
        codes = self._judge_by_state_before(checked)
        touched: set[tuple[str, str]] = set()

        def judge(transaction: CheckedTransaction) -> None:
            check_conflicts(self._connection, transaction.rwsets, touched)

        for position, transaction in enumerate(checked):
            if codes[position] == VALID:
                codes[position] = self._code(position, transaction, judge)
            if codes[position] == VALID:
                height = Version(self._number, position)
                touched |= state.apply(self._connection, height, transaction.rwsets)
        return codes

    def _judge_by_state_before(self, checked: Sequence[CheckedTransaction]) -> list[ValidationCode]:
        checks = EndorsementChecks(self._connection)
        seen: set[str] = set()

        def judge(transaction: CheckedTransaction) -> None:
            self._check_is_new(transaction)
            if transaction.code != VALID:
                return
            if transaction.endorsements is not None:
                checks.check(transaction.endorsements, transaction.rwsets)
            # After the endorsements: what lacks them does not make a later one a duplicate.
            if _has_unique_id(transaction):
                if transaction.txid in seen:
                    raise _duplicate(self._number)
                seen.add(transaction.txid)

        return [
            self._code(position, transaction, judge) for position, transaction in enumerate(checked)
        ]

    def _check_is_new(self, transaction: CheckedTransaction) -> None:
        # As in Fabric, that it is another channel's is found before duplicates are looked for.
        if not _has_unique_id(transaction) or transaction.code == TARGET_CHAIN_NOT_FOUND:
            return
        query = "SELECT block FROM tx WHERE txid = ?"
        row = self._connection.execute(query, (transaction.txid,)).fetchone()
        if row is not None:
            raise _duplicate(row[0])

    def _code(
        self,
        position: int,
        transaction: CheckedTransaction,
        judge: Callable[[CheckedTransaction], None],
    ) -> ValidationCode:
        """What the transaction has, or what `judge` raises."""
        try:
            judge(transaction)
            return transaction.code
        except MalformedTransaction as error:
            code, reason = error.code, str(error)
        except (sqlite3.Error, MemoryError, KeyboardInterrupt, SystemExit):
            raise  # of the file, or of this moment
        except BaseException as error:
            # One transaction must never stop all the others, whatever its reads claim; a panic of
            # the certificates' parser, which reads policies too, is no Exception.
            code, reason = transaction_pb2.INVALID_OTHER_REASON, f"It cannot be judged: {error!r}"
        log_rejection(self._channel, self._number, position, transaction.txid, code, reason)
        return code


def _duplicate(block: int) -> MalformedTransaction:
    return MalformedTransaction(
        transaction_pb2.DUPLICATE_TXID, f"Block {block} has a transaction with this id already."
    )


def _has_unique_id(transaction: CheckedTransaction) -> bool:
    return bool(transaction.txid) and transaction.type == common_pb2.ENDORSER_TRANSACTION
