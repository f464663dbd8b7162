"""Deliver: the loop that answers requests for blocks, one for every service that has blocks.

Follows Fabric 2.5's common/deliver/deliver.go, acl.go and binding.go.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from selvedge_common.logs import get_logger
from selvedge_common.msp import IdentityError, PolicyError
from selvedge_common.protoutil import metrics
from selvedge_common.protoutil.errors import MalformedSeek
from selvedge_common.protoutil.responses import Backlog, Responses, Sender
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

# A long replay to a fast reader never waits for anything: let others have their turn in between.
_BLOCKS_A_TURN = 16

_log = get_logger("common.deliver")


class DeliverStream(Sender, Protocol):
    """What the loop needs of comm.MessageStream."""

    @property
    def full(self) -> bool:
        """Whether more is waiting to be sent than should be."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The client's messages."""

    def send(self, message: bytes) -> None:
        """Queue a message."""

    async def drained(self) -> None:
        """Return once little is waiting to be sent."""


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
    responses_of: Callable[[str], Responses | None],
    check_access: Callable[[OpenedSeek], datetime],
    backlog: Backlog,
    tls_binding: bytes | None = None,
    time_window: float = TIME_WINDOW,
    data_type: str = "block",
    clock: Callable[[], float] = time.time,
) -> None:
    """Answer the Deliver requests of one stream until the client half-closes or one fails.

    Each request is answered by its blocks and one status; after SUCCESS the next one is read, any
    other status is the last message. Blocks go out as the source marshalled them. A client that
    reads slowly holds up only itself, until the backlog is full.

    Args:
        responses_of: gives the blocks of a channel, None for an unknown one.
        check_access: says until when the client may read; raises msp.IdentityError or
            msp.PolicyError to refuse it.
        backlog: bounds what waits for all clients together.
        tls_binding: the `client_certificate_hash` that the request must repeat; empty refuses
            every request, None asks for nothing. Give it where TLS is mutual.
        time_window: how far the request's timestamp may be from `clock`, in seconds.
        data_type: "block" or "filtered_block", for the metrics.
        clock: gives the time in seconds since 1970.
    """
    metrics.deliver_streams_opened.inc()
    backlog.join(stream)
    try:
        async for message in stream:
            try:
                request = open_seek(message)
                _check_binding(request, tls_binding, time_window, clock())
                responses = responses_of(request.channel)
                if responses is None:
                    raise SeekRefused(
                        common_pb2.NOT_FOUND,
                        f"The Deliver request is for the channel {request.channel!r}, which is not"
                        " here: name a channel of this service.",
                    )
            except MalformedSeek as error:
                status = _refuse(stream, common_pb2.BAD_REQUEST, error)
            except SeekRefused as error:
                status = _refuse(stream, error.status, error)
            else:
                counted = metrics.DeliverRequests(request.channel, data_type)
                status = await _answer(
                    stream, request, responses, check_access, backlog, clock, counted
                )
                counted.completed(status == common_pb2.SUCCESS)
            stream.send(status_response(status))
            if status != common_pb2.SUCCESS:
                break
        # What was not read yet counts for as long as it is here.
        await stream.drained()
    finally:
        backlog.leave(stream)
        metrics.deliver_streams_closed.inc()


async def _answer(
    stream: DeliverStream,
    request: OpenedSeek,
    responses: Responses,
    check_access: Callable[[OpenedSeek], datetime],
    backlog: Backlog,
    clock: Callable[[], float],
    counted: metrics.DeliverRequests,
) -> Status:
    try:
        allowed_until = check_access(request).timestamp()
        blocks = resolve(request.seek, responses.height)
    except (IdentityError, PolicyError) as error:
        return _refuse(stream, common_pb2.FORBIDDEN, error)
    except SeekRefused as error:
        return _refuse(stream, error.status, error)
    number = blocks.start
    while True:
        if number >= responses.height:
            if request.seek.behavior == ab_pb2.SeekInfo.FAIL_IF_NOT_READY:
                return common_pb2.NOT_FOUND
            await responses.wait_for(number + 1)
        if clock() > allowed_until:
            return _refuse(stream, common_pb2.FORBIDDEN, "The client's certificate has expired.")
        if not backlog.take(stream, len(responses.response(number))):
            # Nothing is held meanwhile: many may wait here, each for another block.
            await backlog.wait_for(stream, len(responses.response(number)))
        stream.send(responses.response(number))
        counted.block_sent()
        if stream.full:
            await stream.drained()
        elif number % _BLOCKS_A_TURN == 0:
            await asyncio.sleep(0)
        if number == blocks.stop:
            return common_pb2.SUCCESS
        number += 1


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
