"""Deliver: the loop that answers requests for blocks, one for every service that has blocks.

Follows Fabric 2.5's common/deliver/deliver.go, acl.go and binding.go.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Protocol

import grpc

from selvedge_common.logs import get_logger
from selvedge_common.msp import IdentityError, PolicyError
from selvedge_common.protoutil import metrics
from selvedge_common.protoutil.errors import BlockUnavailable, MalformedSeek
from selvedge_common.protoutil.reading import Allowance, BlockStream, Reading
from selvedge_common.protoutil.responses import ResponseSource, SendBound
from selvedge_common.protoutil.seek_request import (
    OpenedSeek,
    SeekRefused,
    Status,
    open_seek,
    resolve,
)
from selvedge_common.protoutil.wire import marshal
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.peer import events_pb2

TIME_WINDOW = 15 * 60.0

# How long a new stream may take to say what it wants.
FIRST_REQUEST_SECONDS = 30.0

_log = get_logger("common.deliver")


class DeliverStream(BlockStream, Protocol):
    """What the loop needs of comm.MessageStream."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The client's messages."""


async def next_turn() -> None:
    """Let everything else have its turn."""
    await asyncio.sleep(0)


def status_response(status: Status) -> bytes:
    """Make the DeliverResponse, the peer's or the orderer's, that ends an answer."""
    return marshal(events_pb2.DeliverResponse(status=status))


def client_certificate_hash(auth_context: Mapping[str, Sequence[bytes]]) -> bytes:
    """Give the SHA-256 of the certificate that the client showed in TLS; empty if it showed none.

    `auth_context` is that of the gRPC stream.
    """
    certificates = auth_context.get("x509_pem_cert", ())
    if not certificates:
        return b""
    der = ssl.PEM_cert_to_DER_cert(certificates[0].decode("ascii"))
    return hashlib.sha256(der).digest()


async def deliver(
    stream: DeliverStream,
    *,
    responses_of: Callable[[str], ResponseSource | None],
    check_access: Callable[[OpenedSeek], datetime],
    check_still: Callable[[], None] = lambda: None,
    backlog: SendBound,
    tls_binding: bytes | None = None,
    time_window: float = TIME_WINDOW,
    data_type: str = "block",
    clock: Callable[[], float] = time.time,
    turn: Callable[[], Awaitable[None]] = next_turn,
    on_reading: Callable[[Reading], None] = lambda _: None,
) -> Status:
    """Answer the Deliver requests of one stream until the client half-closes or one fails.

    Each request is answered by its blocks and one status; after SUCCESS the next one is read, any
    other status is the last message. Blocks go out as the source marshalled them; one that it
    cannot give ends the stream with the status that the source says. So does, with FORBIDDEN, the
    moment at which the client may no longer read, whether a block comes or not. A client that reads
    slowly holds up only itself, until the backlog is full. One that asks for nothing is ended.

    Args:
        responses_of: gives the blocks of a channel, None for an unknown one; may raise SeekRefused.
        check_access: says until when the client may read; raises msp.IdentityError or
            msp.PolicyError to refuse it.
        check_still: raises the same, before a block is sent, when who may read has changed since.
        backlog: bounds what waits for all clients together.
        tls_binding: the `client_certificate_hash` that the request must repeat; empty refuses
            every request, None asks for nothing. Give it where TLS is mutual.
        time_window: how far the request's timestamp may be from `clock`, in seconds.
        data_type: "block", "filtered_block" or "block_and_pvtdata", for the metrics.
        clock: gives the time in seconds since 1970.
        turn: waits until one that has much to read may go on.
        on_reading: is given each request that is answered, before the first block.

    Returns:
        The last status: SUCCESS where it was the client that ended the stream.
    """

    def begin(message: bytes) -> Reading:
        request = open_seek(message)
        _check_binding(request, tls_binding, time_window, clock())
        responses = responses_of(request.channel)
        if responses is None:
            raise SeekRefused(
                common_pb2.NOT_FOUND,
                f"The Deliver request is for the channel {request.channel!r}, which is not"
                " here: name a channel of this service.",
            )
        counted = metrics.DeliverRequests(request.channel, data_type)
        try:
            until = check_access(request).timestamp()
            blocks = resolve(request.seek, responses.height)
        except Exception:
            counted.completed(False)
            raise
        waits = request.seek.behavior != ab_pb2.SeekInfo.FAIL_IF_NOT_READY
        allowance = Allowance(until, check_still, clock)
        return Reading(stream, responses, blocks, waits, allowance, backlog, counted, turn)

    metrics.deliver_streams_opened.inc()
    backlog.join(stream)
    silence = asyncio.get_running_loop().call_later(FIRST_REQUEST_SECONDS, _end_silent, stream)
    status: Status = common_pb2.SUCCESS
    try:
        async for message in stream:
            silence.cancel()
            try:
                reading = begin(message)
                del message  # a stream may wait for blocks as long as it likes
                on_reading(reading)
                await reading.run()
            except MalformedSeek as error:
                status = _refuse(stream, common_pb2.BAD_REQUEST, error)
            except (SeekRefused, BlockUnavailable) as error:
                status = _refuse(stream, error.status, error)
            except (IdentityError, PolicyError) as error:
                status = _refuse(stream, common_pb2.FORBIDDEN, error)
            stream.send(status_response(status))
            if status != common_pb2.SUCCESS:
                break
        # What was not read yet counts for as long as it is here. Who reads nothing is not waited
        # for beyond its time: the end of the stream then has its own bound.
        with suppress(TimeoutError):
            async with asyncio.timeout(backlog.patience):
                await stream.drained()
    finally:
        silence.cancel()
        backlog.leave(stream)
        metrics.deliver_streams_closed.inc()
    return status


def _end_silent(stream: DeliverStream) -> None:
    stream.abort(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        f"No request came within {FIRST_REQUEST_SECONDS:g} s: open the stream when there is one.",
    )


def _check_binding(
    request: OpenedSeek, tls_binding: bytes | None, time_window: float, now: float
) -> None:
    stamp = request.channel_header.timestamp
    if abs(stamp.seconds + stamp.nanos / 1e9 - now) > time_window:
        raise MalformedSeek(
            f"The Deliver request is stamped {stamp.seconds} s and it is {int(now)} s here,"
            f" more than {time_window:g} s apart: set the clock of the client."
        )
    claimed = request.channel_header.tls_cert_hash
    if tls_binding is not None and (not tls_binding or claimed != tls_binding):
        raise MalformedSeek(
            "The Deliver request is not bound to the TLS client certificate of its connection:"
            " set tls_cert_hash in the channel header to the SHA-256 of that certificate."
        )


def _refuse(stream: DeliverStream, status: Status, why: object) -> Status:
    # Clients poll for channels that are yet to come, and wait for blocks: no news for an operator.
    log = _log.debug if status == common_pb2.NOT_FOUND else _log.warning
    log("deliver refused", peer=stream.peer, status=common_pb2.Status.Name(status), why=str(why))
    return status
