"""What enrolment tells of the certificates that a process runs on."""

from prometheus_client import Gauge

CERTIFICATE_EXPIRY = Gauge(
    "selvedge_certificate_expiry_timestamp_seconds",
    "When a certificate of this service expires, seconds since 1970.",
    ["certificate"],
)
