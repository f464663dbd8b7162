"""Ordering: envelopes into one sequence of durable, signed blocks."""

from chaincode_support.ordering.cutter import BatchSize
from chaincode_support.ordering.embedded import EmbeddedOrdering, OrderingSettings
from chaincode_support.ordering.errors import (
    LogUnusable,
    OrderingClosed,
    OrderingError,
    OrderingFailed,
    OrderingFull,
)
from chaincode_support.ordering.interface import Ordering

__all__ = [
    "BatchSize",
    "EmbeddedOrdering",
    "LogUnusable",
    "Ordering",
    "OrderingClosed",
    "OrderingError",
    "OrderingFailed",
    "OrderingFull",
    "OrderingSettings",
]
