"""Metrics of signed requests."""

from __future__ import annotations

from prometheus_client import Counter

requests_over_limit = Counter(
    "admin_requests_over_limit",
    "The number of signed requests refused because they were too large.",
)
