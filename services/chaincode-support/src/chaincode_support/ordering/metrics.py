"""Ordering metrics, under Fabric's names (docs/source/metrics_reference.rst) where it has them."""

import functools
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from selvedge_common.metrics import FabricCounter

_LABELS = ["channel", "type", "status"]

broadcast_processed_count = FabricCounter(
    "broadcast_processed_count", "The number of transactions processed.", _LABELS
)
broadcast_validate_duration = Histogram(
    "broadcast_validate_duration", "The time to validate a transaction in seconds.", _LABELS
)
broadcast_enqueue_duration = Histogram(
    "broadcast_enqueue_duration",
    "The time to order a transaction in seconds, until it is durable.",
    _LABELS,
)
block_fill_duration = Histogram(
    "blockcutter_block_fill_duration",
    "The time from the first transaction of a block to the block being cut in seconds.",
    ["channel"],
)
pending_messages = Gauge(
    "ordering_pending_messages", "Transactions that wait to become durable.", ["channel"]
)
pending_bytes = Gauge(
    "ordering_pending_bytes", "Bytes of the transactions that wait to become durable.", ["channel"]
)
wal_bytes = Gauge(
    "ordering_wal_bytes",
    "Bytes of the write-ahead log beside the ordering log's file.",
    ["channel"],
)
streams = Gauge("broadcast_streams", "The number of open Broadcast streams.")
streams_refused = Counter(
    "broadcast_streams_refused",
    "The number of Broadcast streams refused because too many were open.",
)
refused = Counter(
    "ordering_refused",
    "Transactions refused, whose fault it was not, by reason: full, behind, stopped, damaged, "
    "closed.",
    ["channel", "reason"],
)


class BroadcastMetrics(NamedTuple):
    """The children of one (channel, type, status)."""

    processed: Counter
    validate_duration: Histogram
    enqueue_duration: Histogram


@functools.cache  # as many as there are labels: channels, types and statuses that are known
def broadcast(channel: str, kind: str, status: str) -> BroadcastMetrics:
    """The metrics of Broadcast with these labels, looked up once."""
    labels = (channel, kind, status)
    return BroadcastMetrics(
        broadcast_processed_count.labels(*labels),
        broadcast_validate_duration.labels(*labels),
        broadcast_enqueue_duration.labels(*labels),
    )
