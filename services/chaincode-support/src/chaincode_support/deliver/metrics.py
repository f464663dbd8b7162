"""What Deliver refuses; what it sends is counted where it is sent (protoutil.metrics)."""

from prometheus_client import Counter

streams_refused = Counter(
    "deliver_streams_refused",
    "Deliver streams refused, by limit: all (of the service), client (of one certificate).",
    ["limit"],
)
