"""What a committed block led to, once more: state, history and index from the block alone.

Follows release 2.5, core/ledger/kvledger (recoverDBs) and txmgmt's CommitLostBlock: the verdicts in
the block are taken as they are. Another release may judge otherwise; what was committed stays.
"""

import sqlite3
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from chaincode_support.ledger import index, state
from chaincode_support.ledger.read_write_set import Version
from selvedge_common.protoutil import metadata
from selvedge_common.protoutil.errors import (
    MalformedBlock,
    MalformedTransaction,
    ValidationCode,
)
from selvedge_common.protoutil.transactions import OpenedTransaction, open_transaction
from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer import transaction_pb2

TABLES = ("state", "history", "tx")
"""What follows from blocks."""

_VERDICTS = frozenset(transaction_pb2.TxValidationCode.values()) - {transaction_pb2.NOT_VALIDATED}
# What can be said of any transaction: a broken signature explains whatever else does not fit.
_OF_ANY = frozenset({transaction_pb2.BAD_CREATOR_SIGNATURE, transaction_pb2.INVALID_OTHER_REASON})


def replay(connection: sqlite3.Connection, block: common_pb2.Block) -> None:
    """Write into TABLES what the next block of a ledger led to.

    Raises MalformedBlock when its verdicts are missing or contradict its transactions.
    """
    number = block.header.number
    codes, transactions = _judged(block)
    if number == 0:
        return  # the configuration writes nothing, and its id is nobody's
    for position, (transaction, code) in enumerate(zip(transactions, codes, strict=True)):
        if code == transaction_pb2.VALID:
            state.apply(connection, Version(number, position), _writes(transaction, number))
    index.add(connection, number, _proved_ids(codes, transactions), codes)


def proved_ids(block: common_pb2.Block) -> list[str]:
    """The id of each transaction, empty where its creator's signature has not proved it.

    Raises MalformedBlock when the verdicts are missing or contradict the transactions.
    """
    return _proved_ids(*_judged(block))


def _judged(
    block: common_pb2.Block,
) -> tuple[list[ValidationCode], list[OpenedTransaction | None]]:
    """The verdicts of a block, and its transactions: None for one that cannot be opened."""
    number = block.header.number
    codes = metadata.validation_codes(block)
    entries = block.metadata.metadata
    verdicts = entries[common_pb2.TRANSACTIONS_FILTER : common_pb2.TRANSACTIONS_FILTER + 1]
    if [len(each) for each in verdicts] != [len(codes)]:
        raise MalformedBlock(f"block {number} has not one verdict for each of its transactions")
    if number == 0 and any(codes):
        raise MalformedBlock("block 0 calls the channel's configuration invalid")
    opened = [_open(envelope) for envelope in block.data.data]
    for position, (code, (_, possible)) in enumerate(zip(codes, opened, strict=True)):
        if code not in possible:
            raise MalformedBlock(
                f"block {number} has a verdict on its transaction {position} that it cannot have"
            )
    return codes, [transaction for transaction, _ in opened]


def _open(envelope: bytes) -> tuple[OpenedTransaction | None, frozenset[int]]:
    """A transaction, and the verdicts that it can have."""
    try:
        return open_transaction(envelope), _VERDICTS
    except MalformedTransaction as error:
        return None, _OF_ANY | {error.code}


def _proved_ids(
    codes: Sequence[ValidationCode], transactions: Sequence[OpenedTransaction | None]
) -> list[str]:
    unproved = transaction_pb2.BAD_CREATOR_SIGNATURE
    return [
        "" if transaction is None or code == unproved else transaction.txid
        for transaction, code in zip(transactions, codes, strict=True)
    ]


def _writes(
    transaction: OpenedTransaction | None, number: int
) -> list[tuple[str, kv_rwset_pb2.KVRWSet]]:
    try:
        action = transaction.open_action() if transaction is not None else None
        if action is None:
            raise MalformedBlock(f"block {number} calls a transaction valid that cannot be one")
        results = rwset_pb2.TxReadWriteSet.FromString(action.chaincode_action.results)
        return [
            (part.namespace, kv_rwset_pb2.KVRWSet.FromString(part.rwset))
            for part in results.ns_rwset
        ]
    except (DecodeError, MalformedTransaction) as error:
        raise MalformedBlock(
            f"block {number} calls a transaction valid that cannot be opened: {error}"
        ) from error
