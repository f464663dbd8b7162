"""Metrics of what chaincodes ask, counted without locks: a request costs less than to count it so.

prometheus_client's own counters take a lock each, four times a request. These belong to the event
loop, and are made into series when somebody asks for them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import REGISTRY, Metric
from prometheus_client.metrics_core import HistogramMetricFamily, UnknownMetricFamily
from prometheus_client.registry import Collector

_REQUEST = ("type", "channel", "chaincode")
_OUTCOME = (*_REQUEST, "success")
_BOUNDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)

# Names may be anybody's where no certificate proves them: those that come later count together.
_MAX_SERIES = 10_000
_OTHERS = "others"


class _Outcome:
    """The requests that ended in one way."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.seconds = 0.0

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, requests that took no longer)."""
        total = 0
        found = []
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class RequestMetrics:
    """Of one message type, channel and chaincode."""

    __slots__ = ("_failed", "_succeeded", "received")

    def __init__(self) -> None:
        self.received = 0
        self._succeeded = _Outcome()
        self._failed = _Outcome()

    def completed(self, success: bool, seconds: float) -> None:
        """Count a request that took so long."""
        outcome = self._succeeded if success else self._failed
        outcome.counts[bisect_left(_BOUNDS, seconds)] += 1
        outcome.seconds += seconds

    def outcomes(self) -> tuple[tuple[str, _Outcome], ...]:
        """By the value of the label `success`."""
        return ("true", self._succeeded), ("false", self._failed)


class ShimRequests(Collector):
    """All of them, under Fabric's names (docs/source/metrics_reference.rst)."""

    def __init__(self) -> None:
        self._by_labels: dict[tuple[str, str, str], RequestMetrics] = {}

    def of(self, kind: str, channel: str, chaincode: str) -> RequestMetrics:
        """Where these requests are counted."""
        labels = (kind, channel, chaincode)
        if labels not in self._by_labels and len(self._by_labels) >= _MAX_SERIES:
            labels = (kind, channel, _OTHERS)
        return self._by_labels.setdefault(labels, RequestMetrics())

    def collect(self) -> Iterator[Metric]:
        """The series as they are now."""
        # Untyped as all counters under Fabric's names: see selvedge_common.metrics.
        received = UnknownMetricFamily(
            "chaincode_shim_requests_received",
            "The number of chaincode shim requests received.",
            labels=_REQUEST,
        )
        completed = UnknownMetricFamily(
            "chaincode_shim_requests_completed",
            "The number of chaincode shim requests completed.",
            labels=_OUTCOME,
        )
        duration = HistogramMetricFamily(
            "chaincode_shim_request_duration",
            "The seconds it took to complete a chaincode shim request.",
            labels=_OUTCOME,
        )
        for labels, metrics in list(self._by_labels.items()):
            received.add_metric(labels, metrics.received)
            for success, outcome in metrics.outcomes():
                full = (*labels, success)
                completed.add_metric(full, sum(outcome.counts))
                duration.add_metric(full, outcome.buckets(), outcome.seconds)
        yield from (received, completed, duration)


shim_requests = ShimRequests()
REGISTRY.register(shim_requests)
