"""What the authority counts."""

from prometheus_client import Counter, Gauge

CERTIFICATES_ISSUED = Counter(
    "ca_certificates_issued_total", "Certificates issued, by what they are for.", ["profile"]
)
REQUESTS_REFUSED = Counter(
    "ca_requests_refused_total",
    "Requests for certificates that were refused, by reason.",
    ["reason"],
)
ROOT_EXPIRY = Gauge(
    "ca_root_expiry_timestamp_seconds", "When a root expires, seconds since 1970.", ["root"]
)
