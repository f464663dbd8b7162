"""Requests that members of the peer's organisation signed, within the peer's bound."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from chaincode_support.admin import metrics
from selvedge_common.msp import MSP
from selvedge_common.signed_requests import SignedRequests


def signed_requests(
    organisation: MSP,
    *,
    max_bytes: int,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> SignedRequests:
    """Open requests to this peer.

    Args:
        organisation: the peer's own.
        max_bytes: the largest one that is looked at (`peer.limits.adminRequestBytes`).
        now: the clock, in UTC.
    """
    return SignedRequests(
        organisation,
        max_bytes=max_bytes,
        setting="peer.limits.adminRequestBytes",
        on_too_large=metrics.requests_over_limit.inc,
        now=now,
    )
