"""Ordering: envelopes into one sequence of durable, signed blocks."""

from chaincode_support.ordering.cutter import BatchSize
from chaincode_support.ordering.embedded import EmbeddedOrdering, OrderingSettings
from chaincode_support.ordering.errors import (
    CommittingStopped,
    LedgerBehind,
    LogDamaged,
    LogUnreadable,
    LogUnusable,
    LogUnwritable,
    OrderingClosed,
    OrderingError,
    OrderingFailed,
    OrderingFull,
    OrderingRefused,
    PositionTaken,
)
from chaincode_support.ordering.interface import BlockLog, OrderedBlocks, Ordering, Tip
from chaincode_support.ordering.log import SqliteLog

__all__ = [
    "BatchSize",
    "BlockLog",
    "CommittingStopped",
    "EmbeddedOrdering",
    "LedgerBehind",
    "LogDamaged",
    "LogUnreadable",
    "LogUnusable",
    "LogUnwritable",
    "OrderedBlocks",
    "Ordering",
    "OrderingClosed",
    "OrderingError",
    "OrderingFailed",
    "OrderingFull",
    "OrderingRefused",
    "OrderingSettings",
    "PositionTaken",
    "SqliteLog",
    "Tip",
]
