"""The ledger of a channel: simulation, validation and commit."""

from chaincode_support.ledger.errors import (
    BlockNotFound,
    BlockRefused,
    CommitFailed,
    LedgerBusy,
    LedgerClosed,
    LedgerError,
    LedgerInUse,
    LedgerUnusable,
    NotKept,
    PagesAreReadOnly,
    ReadFailed,
    SimulationTooLarge,
    TransactionNotFound,
)
from chaincode_support.ledger.ledger import Ledger
from chaincode_support.ledger.range_iterator import RangeIterator
from chaincode_support.ledger.simulator import Simulator
from chaincode_support.ledger.transaction import CheckedTransaction

__all__ = [
    "BlockNotFound",
    "BlockRefused",
    "CheckedTransaction",
    "CommitFailed",
    "Ledger",
    "LedgerBusy",
    "LedgerClosed",
    "LedgerError",
    "LedgerInUse",
    "LedgerUnusable",
    "NotKept",
    "PagesAreReadOnly",
    "RangeIterator",
    "ReadFailed",
    "SimulationTooLarge",
    "Simulator",
    "TransactionNotFound",
]
