"""The usual grpc_server_* metrics, for every method including message streams."""

import time
from collections.abc import Iterator

import grpc
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

_METHOD = ("grpc_type", "grpc_service", "grpc_method")


class Count:
    """A number that only grows. Raised on one thread, it takes no lock: a Counter's costs a good
    part of what sending a small message does."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """Count one."""
        self.value += 1


class MessageCounter(Collector):
    """A counter of messages by method, whose hot path is `Count.inc`."""

    def __init__(self, name: str, documentation: str) -> None:
        self._name = name
        self._documentation = documentation
        self._counts: dict[tuple[str, ...], Count] = {}
        REGISTRY.register(self)

    def labels(self, *labels: str) -> Count:
        """What counts a method's messages."""
        return self._counts.setdefault(labels, Count())

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What they are now."""
        family = CounterMetricFamily(self._name, self._documentation, labels=_METHOD)
        for labels, count in tuple(self._counts.items()):
            family.add_metric(labels, count.value)
        yield family


STARTED = Counter("grpc_server_started_total", "Calls started on the server.", _METHOD)
HANDLED = Counter(
    "grpc_server_handled_total",
    "Calls completed on the server, whatever their status.",
    (*_METHOD, "grpc_code"),
)
SECONDS = Histogram(
    "grpc_server_handling_seconds",
    "Seconds from the start of a call to its status.",
    _METHOD,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
RECEIVED = MessageCounter("grpc_server_msg_received", "Messages received by the server.")
SENT = MessageCounter("grpc_server_msg_sent", "Messages sent by the server.")
OVERFLOWS = Counter(
    "grpc_server_stream_overflows_total",
    "Message streams ended because a bound on waiting bytes, size or flush time was passed.",
    ("grpc_service", "grpc_method", "bound"),
)
PENDING = Gauge(
    "grpc_server_stream_pending_bytes",
    "Bytes waiting to be sent in all message streams of the process.",
)


RECEIVING = Gauge(
    "grpc_server_receiving_bytes",
    "Bytes of headers, and of messages that are not whole or not taken yet, in all streams of the"
    " process; native transport.",
)
CONNECTIONS = Gauge("grpc_server_connections", "Open connections; native transport.")
CONNECTIONS_ENDED = Counter(
    "grpc_server_connections_ended_total",
    "Connections that ended, by why; native transport.",
    ("reason",),
)
HANDSHAKE_FAILURES = Counter(
    "grpc_server_handshake_failures_total",
    "TLS handshakes that failed, by why; native transport.",
    ("reason",),
)
LIMITS = Counter(
    "grpc_server_limits_passed_total",
    "Times that a client was stopped at a limit of its connection; native transport.",
    ("limit",),
)


class Method:
    """The metrics of one method, its labels resolved once."""

    def __init__(self, path: str, kind: str) -> None:
        _, self.service, self.name = path.split("/")
        labels = (kind, self.service, self.name)
        self._labels = labels
        self._started = STARTED.labels(*labels)
        self._seconds = SECONDS.labels(*labels)
        self._received = RECEIVED.labels(*labels)
        self._sent = SENT.labels(*labels)

    def call(self) -> "Call":
        """Count a call that starts now."""
        self._started.inc()
        return Call(self)

    def finished(self, code: grpc.StatusCode, seconds: float) -> None:
        """Count a call that ended."""
        HANDLED.labels(*self._labels, CODE_NAMES[code]).inc()
        self._seconds.observe(seconds)

    def overflow(self, bound: str) -> None:
        """Count a message stream ended by one of its bounds."""
        OVERFLOWS.labels(self.service, self.name, bound).inc()


class Call:
    """One call on the way; `received` and `sent` count its messages."""

    __slots__ = ("_began", "_method", "received", "sent")

    def __init__(self, method: Method) -> None:
        self._method = method
        self._began = time.perf_counter()
        self.received = method._received.inc
        self.sent = method._sent.inc

    def finished(self, code: grpc.StatusCode) -> None:
        """Count the end of the call."""
        self._method.finished(code, time.perf_counter() - self._began)


# Go's names of the codes, as all other gRPC servers label them: OK, NotFound, DeadlineExceeded.
CODE_NAMES = {
    code: "OK" if code is grpc.StatusCode.OK else code.name.title().replace("_", "")
    for code in grpc.StatusCode
}
CODE_NAMES[grpc.StatusCode.CANCELLED] = "Canceled"


def unknown_method() -> None:
    """Count a call to a method nobody serves; its name is the client's, so it is no label."""
    STARTED.labels("unknown", "unknown", "unknown").inc()
    code = CODE_NAMES[grpc.StatusCode.UNIMPLEMENTED]
    HANDLED.labels("unknown", "unknown", "unknown", code).inc()
