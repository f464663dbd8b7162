"""Metrics of the chaincode streams, under Fabric's names and labels.

Follows core/chaincode/metrics.go of Fabric 2.5 (docs/source/metrics_reference.rst). Labels hold
registered names, this peer's channel and known message types only: never what a stranger sent.
"""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from selvedge_common.metrics import FabricCounter

_REQUEST = ("type", "channel", "chaincode")
_OUTCOME = (*_REQUEST, "success")

shim_requests_received = FabricCounter(
    "chaincode_shim_requests_received",
    "The number of chaincode shim requests received.",
    _REQUEST,
)
shim_requests_completed = FabricCounter(
    "chaincode_shim_requests_completed",
    "The number of chaincode shim requests completed.",
    _OUTCOME,
)
shim_request_duration = Histogram(
    "chaincode_shim_request_duration",
    "The seconds it took to complete a chaincode shim request.",
    _OUTCOME,
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0),
)
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


class RequestMetrics(NamedTuple):
    """The children of one (type, channel, chaincode), looked up once per stream."""

    received: Counter
    succeeded: Counter
    failed: Counter
    success_duration: Histogram
    failure_duration: Histogram

    @classmethod
    def of(cls, kind: str, channel: str, chaincode: str) -> RequestMetrics:
        labels = (kind, channel, chaincode)
        return cls(
            shim_requests_received.labels(*labels),
            shim_requests_completed.labels(*labels, "true"),
            shim_requests_completed.labels(*labels, "false"),
            shim_request_duration.labels(*labels, "true"),
            shim_request_duration.labels(*labels, "false"),
        )

    def completed(self, success: bool, seconds: float) -> None:
        if success:
            self.succeeded.inc()
            self.success_duration.observe(seconds)
        else:
            self.failed.inc()
            self.failure_duration.observe(seconds)
