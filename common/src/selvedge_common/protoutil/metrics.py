"""The deliver_* metrics, under Fabric's names (common/deliver/metrics.go)."""

from __future__ import annotations

from prometheus_client import Gauge

from selvedge_common.metrics import FabricCounter

_LABELS = ("channel", "filtered", "data_type")

deliver_streams_opened = FabricCounter("deliver_streams_opened", "Deliver streams opened.")
deliver_streams_closed = FabricCounter("deliver_streams_closed", "Deliver streams closed.")
deliver_requests_received = FabricCounter(
    "deliver_requests_received", "Deliver requests received for known channels.", _LABELS
)
deliver_requests_completed = FabricCounter(
    "deliver_requests_completed", "Deliver requests answered.", (*_LABELS, "success")
)
deliver_pending_bytes = Gauge(
    "deliver_pending_bytes", "Bytes sent by Deliver and not yet taken by the transport."
)
deliver_blocks_sent = FabricCounter("deliver_blocks_sent", "Blocks sent by Deliver.", _LABELS)


class DeliverRequests:
    """Counts one request; only known channels get here, so the label is bounded."""

    def __init__(self, channel: str, data_type: str) -> None:
        self._labels = (channel, str(data_type == "filtered_block").lower(), data_type)
        deliver_requests_received.labels(*self._labels).inc()
        self.blocks_sent = deliver_blocks_sent.labels(*self._labels).inc

    def completed(self, success: bool) -> None:
        """Count the end of the request."""
        deliver_requests_completed.labels(*self._labels, str(success).lower()).inc()
