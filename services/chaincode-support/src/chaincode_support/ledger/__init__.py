"""The ledger of a channel: simulation, validation and commit."""

from chaincode_support.ledger.errors import (
    BlockNotFound,
    BlockRefused,
    CommitFailed,
    LedgerBusy,
    LedgerClosed,
    LedgerError,
    LedgerUnusable,
    SimulationTooLarge,
)
from chaincode_support.ledger.ledger import Ledger
from chaincode_support.ledger.simulator import RangeIterator, Simulator
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
    "LedgerUnusable",
    "RangeIterator",
    "SimulationTooLarge",
    "Simulator",
]
