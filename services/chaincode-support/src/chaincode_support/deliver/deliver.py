"""Deliver streams: blocks from wherever a reader wants to begin, and the new ones as they come.

The loop itself is protoutil.seek's, which follows release 2.5, common/deliver; core/peer's
deliverevents.go and orderer/common/server say what the services send.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import grpc

from chaincode_support.channel import Channel
from chaincode_support.deliver import metrics
from selvedge_common.comm import GRPCServer, MessageStream, Places, StatusError
from selvedge_common.protoutil import seek, seek_request
from selvedge_common.protoutil.config_block import READERS
from selvedge_common.protoutil.responses import (
    Backlog,
    BlockSource,
    Responses,
    block_response,
    filtered_block_response,
    private_data_response,
)


@dataclass(frozen=True, slots=True)
class Readable:
    """A channel, and whose blocks of it are read: the ledger's or the ordering's."""

    channel: Channel
    source: BlockSource


# How each kind of response is made, by the kind's name in metrics.
_MAKE = {
    "block": block_response,
    "filtered_block": filtered_block_response,
    "block_and_pvtdata": private_data_response,
}

# One client's certificate may have a stream in this many of those that a service allows.
CLIENT_SHARE = 4


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
            data_type: {name: Responses(each.source, make) for name, each in channels.items()}
            for data_type, make in _MAKE.items()
        }
        self._mutual_tls = mutual_tls
        self._places = Places(max_streams, max(1, max_streams // CLIENT_SHARE))

    async def deliver(self, stream: MessageStream) -> None:
        """Serve a stream of whole blocks."""
        await self._serve(stream, "block")

    async def deliver_filtered(self, stream: MessageStream) -> None:
        """Serve a stream of filtered blocks."""
        await self._serve(stream, "filtered_block")

    async def deliver_with_private_data(self, stream: MessageStream) -> None:
        """Serve a stream of whole blocks and their private data, of which there is none so far."""
        await self._serve(stream, "block_and_pvtdata")

    async def _serve(self, stream: MessageStream, data_type: str) -> None:
        client = seek.client_certificate_hash(stream.auth_context()) if self._mutual_tls else None
        self._check_room(client or b"")
        with self._places.held(client or b""):
            await seek.deliver(
                stream,
                responses_of=self._responses[data_type].get,
                check_access=self._check_access,
                backlog=self._backlog,
                data_type=data_type,
                tls_binding=client,
            )

    def _check_room(self, client: bytes) -> None:
        full = self._places.full_for(client)
        if full is None:
            return
        metrics.streams_refused.labels(full).inc()
        setting = "peer.limits.concurrency.deliverService"
        sentence = (
            f"All {self._places.limit} Deliver streams that this service allows are open: "
            f"close one, or raise {setting}."
            if full == "all"
            else f"This client's certificate has {self._places.of_client} Deliver streams open, "
            f"its share of {setting}: close one."
        )
        raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, sentence)

    def _check_access(self, request: seek_request.OpenedSeek) -> datetime:
        """Until when the request's signer may read. Raises IdentityError or PolicyError."""
        channel = self._channels[request.channel].channel
        signed = request.signed_data()
        identity = channel.identify(signed.identity)
        identity.verify(signed.message, signed.signature)
        channel.require(READERS, identity)
        return identity.expires_at


def add_peer_deliver(server: GRPCServer, deliver: Deliver) -> None:
    """Serve protos.Deliver."""
    for method, handler in (
        ("Deliver", deliver.deliver),
        ("DeliverFiltered", deliver.deliver_filtered),
        ("DeliverWithPrivateData", deliver.deliver_with_private_data),
    ):
        server.add_message_stream(f"/protos.Deliver/{method}", handler)
