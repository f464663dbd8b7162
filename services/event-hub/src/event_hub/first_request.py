"""The one request of a call that is answered by a stream."""

import asyncio
from collections.abc import AsyncIterable

import grpc

from selvedge_common.comm import StatusError
from selvedge_common.protoutil import seek
from selvedge_common.protoutil.errors import MalformedMessage
from selvedge_common.protoutil.wire import parse
from selvedge_protos.common import common_pb2


async def first_request(messages: AsyncIterable[bytes]) -> common_pb2.Envelope:
    """Read the request of a new stream; nothing can be read after it.

    Args:
        messages: what the client sends.

    Raises:
        StatusError: INVALID_ARGUMENT for none, or one that is no envelope; DEADLINE_EXCEEDED for
            one that does not come.
    """
    try:
        async with asyncio.timeout(seek.FIRST_REQUEST_SECONDS):
            message = await anext(aiter(messages))
    except TimeoutError:
        raise StatusError(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"no request came within {seek.FIRST_REQUEST_SECONDS:g} s: send one with the call",
        ) from None
    except StopAsyncIteration:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT, "the call came without a request: send one"
        ) from None
    try:
        return parse(common_pb2.Envelope, message, "request")
    except MalformedMessage as error:
        raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
