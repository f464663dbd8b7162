"""Metrics of the chaincode streams, under Fabric's names and labels.

Follows core/chaincode/metrics.go of Fabric 2.5 (docs/source/metrics_reference.rst). Labels hold
registered names, this peer's channel and known message types only: never what a stranger sent.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from selvedge_common.metrics import FabricCounter

execute_timeouts = FabricCounter(
    "chaincode_execute_timeouts",
    "The number of chaincode executions (Init or Invoke) that have timed out.",
    ("chaincode",),
)
streams = Gauge("chaincode_streams", "The number of open chaincode streams.")
transactions = Gauge("chaincode_transactions", "The number of transactions that chaincodes run.")
transactions_refused = Counter(
    "chaincode_transactions_refused",
    "The number of transactions refused because their chaincode ran too many.",
)
queries_refused = Counter(
    "chaincode_queries_refused",
    "The number of range queries refused because their transaction had too many open.",
)
refusals = Counter(
    "chaincode_stream_refusals",
    "The number of chaincode streams the peer ended, by gRPC status.",
    ("code",),
)
limit_refusals = Counter(
    "chaincode_limit_refusals",
    "The number of transactions and answers refused for their size (messageBytes), for what waits "
    "to be read (pendingBytes), or for those that wait for their chaincode (waiting).",
    ("limit",),
)
