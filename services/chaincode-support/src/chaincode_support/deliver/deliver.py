"""Deliver streams: blocks from wherever a reader wants to begin, and the new ones as they come.

The loop itself is protoutil.seek's, which follows release 2.5, common/deliver; core/peer's
deliverevents.go and orderer/common/server say what the services send.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import grpc

from chaincode_support.channel import Channel
from chaincode_support.deliver import metrics
from selvedge_common.comm import GRPCServer, MessageStream, StatusError
from selvedge_common.protoutil import seek, seek_request
from selvedge_common.protoutil.config_block import READERS
from selvedge_common.protoutil.responses import (
    Backlog,
    BlockSource,
    Responses,
    block_response,
    filtered_block_response,
)


@dataclass(frozen=True, slots=True)
class Readable:
    """A channel, and whose blocks of it are read: the ledger's or the ordering's."""

    channel: Channel
    source: BlockSource


# One client's certificate may have a stream in this many of those that a service allows.
CLIENT_SHARE = 4
# How long a new stream may take to say what it wants.
FIRST_REQUEST_SECONDS = 30.0


class Deliver:
    """The Deliver streams of one service, at most `max_streams` of them at a time.

    With mutual TLS a single certificate has at most a quarter of them.
    """

    def __init__(
        self,
        channels: Mapping[str, Readable],
        *,
        mutual_tls: bool,
        max_streams: int,
        backlog: Backlog,
    ) -> None:
        """With `mutual_tls` each request must repeat the hash of its client's certificate.

        `backlog` bounds what waits for readers, and may be shared with other services.
        """
        self._channels = channels
        self._backlog = backlog
        self._responses = {
            filtered: {name: Responses(each.source, make) for name, each in channels.items()}
            for filtered, make in ((False, block_response), (True, filtered_block_response))
        }
        self._mutual_tls = mutual_tls
        self._max_streams = max_streams
        self._max_of_client = max(1, max_streams // CLIENT_SHARE)
        self._streams = 0
        self._of_client: Counter[bytes] = Counter()

    async def deliver(self, stream: MessageStream) -> None:
        """Serve a stream of whole blocks."""
        await self._serve(stream, filtered=False)

    async def deliver_filtered(self, stream: MessageStream) -> None:
        """Serve a stream of filtered blocks."""
        await self._serve(stream, filtered=True)

    async def _serve(self, stream: MessageStream, *, filtered: bool) -> None:
        client = seek.client_certificate_hash(stream.auth_context()) if self._mutual_tls else None
        self._check_room(client)
        responses = self._responses[filtered]
        silence = asyncio.get_running_loop().call_later(FIRST_REQUEST_SECONDS, _end_silent, stream)

        def responses_of(channel: str) -> Responses | None:
            silence.cancel()
            return responses.get(channel)

        self._streams += 1
        if client is not None:
            self._of_client[client] += 1
        try:
            await seek.deliver(
                stream,
                responses_of=responses_of,
                check_access=self._check_access,
                backlog=self._backlog,
                data_type="filtered_block" if filtered else "block",
                tls_binding=client,
            )
        finally:
            silence.cancel()
            self._streams -= 1
            if client is not None:
                self._of_client[client] -= 1
                if not self._of_client[client]:
                    del self._of_client[client]

    def _check_room(self, client: bytes | None) -> None:
        if self._streams >= self._max_streams:
            metrics.streams_refused.labels("all").inc()
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"All {self._max_streams} Deliver streams that this service allows are open: "
                "close one, or raise peer.limits.concurrency.deliverService.",
            )
        if client is not None and self._of_client[client] >= self._max_of_client:
            metrics.streams_refused.labels("client").inc()
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"This client's certificate has {self._max_of_client} Deliver streams open, its "
                "share of peer.limits.concurrency.deliverService: close one.",
            )

    def _check_access(self, request: seek_request.OpenedSeek) -> datetime:
        """Until when the request's signer may read. Raises IdentityError or PolicyError."""
        channel = self._channels[request.channel].channel
        signed = request.signed_data()
        identity = channel.identify(signed.identity)
        identity.verify(signed.message, signed.signature)
        channel.require(READERS, identity)
        return identity.expires_at


def _end_silent(stream: MessageStream) -> None:
    stream.abort(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        f"No request came within {FIRST_REQUEST_SECONDS:g} s: open the stream when there is one.",
    )


def add_peer_deliver(server: GRPCServer, deliver: Deliver) -> None:
    """Serve protos.Deliver; DeliverWithPrivateData stays UNIMPLEMENTED, there being none."""
    server.add_message_stream("/protos.Deliver/Deliver", deliver.deliver)
    server.add_message_stream("/protos.Deliver/DeliverFiltered", deliver.deliver_filtered)
