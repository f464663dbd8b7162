"""AtomicBroadcast/Broadcast: takes signed envelopes, answers each once it is durably ordered.

Follows release 2.5, orderer/common/broadcast and orderer/common/msgprocessor, but SUCCESS means
durable here, where Fabric only means taken; and a refused envelope does not end the stream.

INTERNAL_SERVER_ERROR, which Fabric's Broadcast never gives, means that the envelope was taken and
is not known to be durable: it may still be ordered. Every other status but SUCCESS means that it
never will be. Clients of Fabric take both of 500 and 503 for an orderer that failed, and try
another one (internal/pkg/gateway/submit.go): the same envelope is valid once at most.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc

from chaincode_support.channel import Channel
from chaincode_support.ordering import metrics
from chaincode_support.ordering.errors import OrderingError, OrderingRefused
from chaincode_support.ordering.interface import Ordering
from selvedge_common.comm import MessageStream, StatusError
from selvedge_common.logs import get_logger
from selvedge_common.msp import IdentityError, PolicyError
from selvedge_common.protoutil.config_block import WRITERS
from selvedge_common.protoutil.errors import MalformedMessage
from selvedge_common.protoutil.wire import parse
from selvedge_common.quoting import quoted
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2

_log = get_logger("orderer.broadcast")

_SUCCESS = ab_pb2.BroadcastResponse(status=common_pb2.SUCCESS).SerializeToString()
_CONFIGURATION = (common_pb2.CONFIG, common_pb2.CONFIG_UPDATE, common_pb2.ORDERER_TRANSACTION)
_UNKNOWN = "unknown"

# Handing an envelope to a thread costs more than judging it (verifying gains next to nothing from a
# second thread), unless it is so large that hashing it would hold up all other streams.
_LARGE_BYTES = 1 << 20
# How many envelopes of one stream are judged, 0.1 ms each, before others get a turn of the loop.
_ENVELOPES_PER_TURN = 8
# How long a new stream may say nothing.
FIRST_MESSAGE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class OrderedChannel:
    """A channel with its ordering.

    `max_bytes` is the largest envelope it takes; `check_committing` raises OrderingRefused while
    what is ordered would not be committed, or not soon.
    """

    channel: Channel
    ordering: Ordering
    max_bytes: int
    check_committing: Callable[[], None]


class _Refused(Exception):
    def __init__(self, status: common_pb2.Status.ValueType, info: str) -> None:
        super().__init__(info)
        self.status = status


@dataclass(slots=True)
class _Entry:
    """One envelope on its way; exactly one of `durable` and `refused` is set once it was judged."""

    started: float
    judged: float = 0.0
    channel: str = _UNKNOWN
    type: str = _UNKNOWN
    durable: asyncio.Future[int] | None = None
    refused: _Refused | None = None


class Broadcast:
    """The Broadcast streams of all channels, at most `max_streams` of them at a time."""

    def __init__(
        self, channels: Mapping[str, OrderedChannel], *, max_streams: int, pipeline: int
    ) -> None:
        """`pipeline`: envelopes of one stream in work at a time."""
        self._channels = channels
        self._max_streams = max_streams
        self._pipeline = pipeline
        self._streams = 0

    async def serve(self, stream: MessageStream) -> None:
        """Serve one stream; its replies come in the order of its messages.

        Envelopes are judged one after the other, yet a later one does not wait for an earlier one
        to become durable. A stream with `pipeline` of them in work is not read on.
        Raises StatusError, RESOURCE_EXHAUSTED, above the limit of streams.
        """
        if self._streams >= self._max_streams:
            metrics.streams_refused.inc()
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"All {self._max_streams} Broadcast streams that this service allows are open: "
                "close one, or raise orderer.limits.streams.",
            )
        self._streams += 1
        metrics.streams.inc()
        try:
            await self._take_all(stream)
        finally:
            self._streams -= 1
            metrics.streams.dec()

    async def _take_all(self, stream: MessageStream) -> None:
        silence = asyncio.get_running_loop().call_later(FIRST_MESSAGE_SECONDS, _end_silent, stream)
        entries: asyncio.Queue[_Entry | None] = asyncio.Queue(self._pipeline)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._reply(stream, entries))
                taken = 0
                async for message in stream:
                    silence.cancel()
                    entry = _Entry(time.perf_counter())
                    await self._take(message, entry)
                    await entries.put(entry)
                    taken += 1
                    if taken % _ENVELOPES_PER_TURN == 0:
                        await asyncio.sleep(0)
                await entries.put(None)
        except BaseExceptionGroup as failures:
            # What ended the stream, as whoever serves it knows it: a client that has gone, say.
            raise failures.exceptions[0] from None
        finally:
            silence.cancel()

    async def _take(self, message: bytes, entry: _Entry) -> None:
        try:
            if len(message) < _LARGE_BYTES:
                ordered = self._judge(message, entry)
            else:
                ordered = await asyncio.to_thread(self._judge, message, entry)
            entry.judged = time.perf_counter()
            ordered.check_committing()
            entry.durable = ordered.ordering.order(message)
        except _Refused as refused:
            entry.refused = refused
        except OrderingRefused as error:
            metrics.refused.labels(entry.channel, error.reason).inc()
            entry.refused = _Refused(common_pb2.SERVICE_UNAVAILABLE, str(error))
        entry.judged = entry.judged or time.perf_counter()

    async def _reply(self, stream: MessageStream, entries: asyncio.Queue[_Entry | None]) -> None:
        refused = 0
        try:
            while (entry := await entries.get()) is not None:
                if not await self._reply_to(entry, stream, tell=refused == 0):
                    refused += 1
                if stream.full:
                    await stream.drained()
        finally:
            if refused > 1:
                # One line for all of them: a client must not be able to fill the log.
                _log.warning("envelopes refused", peer=stream.peer, count=refused)

    async def _reply_to(self, entry: _Entry, stream: MessageStream, *, tell: bool) -> bool:
        """Whether the envelope was ordered; if not, `tell` the log."""
        if entry.durable is not None:
            try:
                await entry.durable
            except OrderingError as error:
                entry.refused = _Refused(common_pb2.INTERNAL_SERVER_ERROR, str(error))
        if entry.refused is None:
            stream.send(_SUCCESS)
        else:
            if tell:
                _log.warning(
                    "envelope refused",
                    peer=stream.peer,
                    channel=entry.channel,
                    type=entry.type,
                    status=common_pb2.Status.Name(entry.refused.status),
                    reason=str(entry.refused),
                )
            stream.send(
                ab_pb2.BroadcastResponse(
                    status=entry.refused.status, info=str(entry.refused)
                ).SerializeToString()
            )
        _observe(entry)
        return entry.refused is None

    def _judge(self, message: bytes, entry: _Entry) -> OrderedChannel:
        """Give the channel that may take the envelope. Raises _Refused."""
        try:
            envelope = parse(common_pb2.Envelope, message, "envelope")
            if not envelope.payload:
                raise MalformedMessage("The envelope is empty: put a signed payload into it.")
            header = parse(common_pb2.Payload, envelope.payload, "payload of the envelope").header
            channel_header = parse(
                common_pb2.ChannelHeader, header.channel_header, "channel header of the envelope"
            )
            creator = parse(
                common_pb2.SignatureHeader,
                header.signature_header,
                "signature header of the envelope",
            ).creator
        except MalformedMessage as error:
            raise _Refused(common_pb2.BAD_REQUEST, str(error)) from error
        if channel_header.type in common_pb2.HeaderType.values():
            entry.type = common_pb2.HeaderType.Name(
                common_pb2.HeaderType.ValueType(channel_header.type)
            )
        ordered = self._channels.get(channel_header.channel_id)
        if ordered is None:
            raise _Refused(
                common_pb2.NOT_FOUND,
                f"There is no channel {quoted(channel_header.channel_id)} here: "
                f"submit to {', '.join(sorted(self._channels))}.",
            )
        entry.channel = ordered.channel.name
        if channel_header.type in _CONFIGURATION:
            raise _Refused(
                common_pb2.NOT_IMPLEMENTED,
                f"Channel {entry.channel} cannot be reconfigured: its configuration is that of its "
                "first block. Start with another home to have another one.",
            )
        if channel_header.type != common_pb2.ENDORSER_TRANSACTION:
            raise _Refused(
                common_pb2.BAD_REQUEST,
                f"The envelope has the header type {channel_header.type}: send an "
                "ENDORSER_TRANSACTION (3).",
            )
        # All of it: what this release does not know of an envelope is ordered as well.
        if len(message) > ordered.max_bytes:
            raise _Refused(
                common_pb2.REQUEST_ENTITY_TOO_LARGE,
                f"The envelope has {len(message)} bytes, more than the {ordered.max_bytes} of "
                "orderer.batchSize.absoluteMaxBytes: write less in one transaction.",
            )
        try:
            identity = ordered.channel.identify(creator)
            identity.verify(envelope.payload, envelope.signature)
            ordered.channel.require(WRITERS, identity)
        except (IdentityError, PolicyError) as error:
            raise _Refused(common_pb2.FORBIDDEN, str(error)) from error
        return ordered


def _end_silent(stream: MessageStream) -> None:
    stream.abort(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        f"no envelope came within {FIRST_MESSAGE_SECONDS:g} s: open the stream when there is one",
    )


def _observe(entry: _Entry) -> None:
    status = common_pb2.SUCCESS if entry.refused is None else entry.refused.status
    measured = metrics.broadcast(entry.channel, entry.type, common_pb2.Status.Name(status))
    measured.processed.inc()
    measured.validate_duration.observe(entry.judged - entry.started)
    if entry.durable is not None:
        measured.enqueue_duration.observe(time.perf_counter() - entry.judged)
