"""``selvedge.eventhub.v1.EventHub/Watch``: how the hub is, for its administrators."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import grpc

from event_hub import metrics
from event_hub.first_request import first_request
from event_hub.hub_state import HubStates
from selvedge_common.comm import GRPCServer, MessageStream, Places, StatusError
from selvedge_common.logs import get_logger
from selvedge_common.msp import Identity
from selvedge_common.protoutil.seek import client_certificate_hash
from selvedge_common.protoutil.wire import marshal
from selvedge_common.signed_requests import SignedRequests
from selvedge_protos.selvedge.eventhub.v1.event_hub_pb2 import WatchRequest

log = get_logger("eventhub.watch")

METHOD = "/selvedge.eventhub.v1.EventHub/Watch"

# What may lie between two reports, in seconds.
SHORTEST_INTERVAL_SECONDS = 1.0
LONGEST_INTERVAL_SECONDS = 24 * 3600.0

# How many consumers one report tells of, unless the request says otherwise, and at most: half a
# megabyte, where what they ask for has few words.
CONSUMERS = 100
MAX_CONSUMERS = 1000

# How many streams may be about to ask, of all clients and of one.
STRANGERS = 100
STRANGERS_OF_CLIENT = 10

STOPS = "the event hub is shutting down; connect again"


class Watch:
    """Serves the streams of watchers.

    Args:
        requests: opens what they ask for.
        states: says how the hub is.
        limit: how many may watch at once (``peer.events.maxWatchers``).
        send_timeout: seconds a watcher may leave a report untaken (``peer.events.sendtimeout``).
        certificates_asked: whether clients are asked for a TLS certificate.
        shortest_interval: seconds that lie between two reports at least.
        now: the clock, in UTC.
    """

    def __init__(
        self,
        requests: SignedRequests,
        states: HubStates,
        *,
        limit: int,
        send_timeout: float,
        certificates_asked: bool = True,
        shortest_interval: float = SHORTEST_INTERVAL_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._requests = requests
        self._states = states
        self._limit = limit
        self._send_timeout = send_timeout
        self._certificates_asked = certificates_asked
        self._shortest_interval = shortest_interval
        self._now = now
        self._open: set[MessageStream] = set()
        self._watching = 0
        # Not the places of watchers: who has yet to say that it is an administrator must not keep
        # them from those who are.
        self._strangers = Places(STRANGERS, STRANGERS_OF_CLIENT)
        self._closing = False
        metrics.WATCHERS.set_function(lambda: self._watching)

    async def __call__(self, stream: MessageStream) -> None:
        """Serve one stream until its client leaves, has its one report, or is refused.

        Raises:
            StatusError: the request was refused, the watcher does not read, or who signed has
                expired.
        """
        if self._closing:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, STOPS)
        client = client_certificate_hash(stream.auth_context())
        if self._strangers.full_for(client):
            raise _too_many(f"{STRANGERS} streams have yet to say what they want; try again later")
        self._open.add(stream)
        try:
            with self._strangers.held(client):
                request_message = await first_request(stream)
            opened = self._requests.read(
                request_message,
                admin=True,
                tls_binding=client if client or self._certificates_asked else None,
            )
            request = opened.parse(WatchRequest)
            interval, limit = self._interval(request), _limit(request)
            with self._place():
                log.info("watching", by=str(opened.signer), peer=stream.peer, interval=interval)
                await self._tell(stream, opened.signer, interval, limit)
        finally:
            self._open.discard(stream)

    def farewell(self) -> None:
        """Admit nobody any more, and end every stream after the report that is under way."""
        self._closing = True
        for stream in tuple(self._open):
            stream.close(grpc.StatusCode.UNAVAILABLE, STOPS)

    async def _tell(
        self, stream: MessageStream, signer: Identity, interval: float, limit: int
    ) -> None:
        clock = asyncio.get_running_loop().time
        told = clock()
        while True:
            # A report that waits is old already: there is never a second one behind it.
            if not stream.pending_bytes:
                stream.send(marshal(await self._states.take(limit)))
                told = clock()
            elif clock() - told >= self._send_timeout:
                stream.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"SEND_TIMEOUT: this client has not taken a report for {self._send_timeout:g} "
                    "s; read the stream, or raise peer.events.sendtimeout",
                )
                return
            if not interval:
                return
            await asyncio.sleep(interval)
            if self._now() > signer.expires_at:
                raise StatusError(
                    grpc.StatusCode.UNAUTHENTICATED,
                    f"the certificate of {signer} expired at {signer.expires_at.isoformat()}; "
                    "enrol again and connect anew",
                )

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._watching >= self._limit:
            raise _too_many(
                f"{self._limit} watch the event hub already; try again later, or raise "
                "peer.events.maxWatchers"
            )
        self._watching += 1
        try:
            yield
        finally:
            self._watching -= 1

    def _interval(self, request: WatchRequest) -> float:
        """Seconds between two reports; 0 for one report alone."""
        seconds = request.interval.seconds + request.interval.nanos / 1e9
        shortest, longest = self._shortest_interval, LONGEST_INTERVAL_SECONDS
        if seconds and not shortest <= seconds <= longest:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"no reports come every {seconds:g} s: ask for one every {shortest:g} to "
                f"{longest:g} s, or with an interval of 0 for one alone",
            )
        return seconds


def add_watch(server: GRPCServer, watch: Watch) -> None:
    """Serve `watch` on `server`."""
    server.add_message_stream(METHOD, watch)


def _too_many(sentence: str) -> StatusError:
    metrics.WATCHERS_REFUSED.inc()
    return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"TOO_MANY_WATCHERS: {sentence}")


def _limit(request: WatchRequest) -> int:
    if request.limit > MAX_CONSUMERS:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"no report tells of {request.limit} consumers: ask for {MAX_CONSUMERS} at most, those "
            "that are furthest behind",
        )
    return request.limit or CONSUMERS
