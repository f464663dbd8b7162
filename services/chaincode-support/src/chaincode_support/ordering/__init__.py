"""Ordering: envelopes into one sequence of durable, signed blocks."""

from chaincode_support.ordering.cutter import BatchSize
from chaincode_support.ordering.embedded import EmbeddedOrdering, OrderingSettings
from chaincode_support.ordering.errors import (
    CommittingStopped,
    LedgerBehind,
    LogDamaged,
    LogUnreadable,
    LogUnusable,
    OrderingClosed,
    OrderingError,
    OrderingFailed,
    OrderingFull,
    OrderingRefused,
)
from chaincode_support.ordering.interface import Ordering

__all__ = [
    "BatchSize",
    "CommittingStopped",
    "EmbeddedOrdering",
    "LedgerBehind",
    "LogDamaged",
    "LogUnreadable",
    "LogUnusable",
    "Ordering",
    "OrderingClosed",
    "OrderingError",
    "OrderingFailed",
    "OrderingFull",
    "OrderingRefused",
    "OrderingSettings",
]
