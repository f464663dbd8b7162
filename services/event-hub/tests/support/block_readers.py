"""Clients that read blocks by protos.Deliver."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
from eventhouse import EOF, PATIENCE, House, Running, dialled, next_message

from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil import seek_request
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2
from selvedge_protos.peer import events_pb2

WAIT = ab_pb2.SeekInfo.BLOCK_UNTIL_READY
FAIL = ab_pb2.SeekInfo.FAIL_IF_NOT_READY
# A connection on which little can be under way, so that who does not read is noticed soon.
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * 1024))


class BlockReader:
    """A client with one stream, which says exactly what it is told to.

    Args:
        house: whose client it is.
        hub: what it reads from.
        method: of protos.Deliver.
        identity: who signs.
        options: of the gRPC channel.
    """

    def __init__(
        self,
        house: House,
        hub: Running,
        method: str = "Deliver",
        identity: SigningIdentity | None = None,
        options: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.identity = identity or house.organisation.identity("user")
        self._channel, self.tls_cert_hash = dialled(house.organisation, hub.address, *options)
        opened: Any = self._channel.stream_stream(f"/protos.Deliver/{method}")  # type: ignore[call-arg]
        self.call = opened()

    async def ask(
        self,
        start: seek_request.Position = seek_request.OLDEST,
        stop: seek_request.Position = seek_request.FOREVER,
        behavior: seek_request.Behavior = WAIT,
        *,
        channel: str = "mychannel",
        tls_cert_hash: bytes | None = None,
    ) -> None:
        """Ask for blocks, as protoutil.seek_request says."""
        tls = self.tls_cert_hash if tls_cert_hash is None else tls_cert_hash
        envelope = seek_request.seek_envelope(channel, start, stop, behavior, self.identity, tls)
        await self.say(envelope)

    async def say(self, envelope: common_pb2.Envelope | bytes) -> None:
        """Send a request as it is."""
        data = envelope if isinstance(envelope, bytes) else envelope.SerializeToString()
        await self.call.write(data)

    async def hear_bytes(self) -> bytes:
        """The next response."""
        return await next_message(self.call)

    async def hear(self) -> events_pb2.DeliverResponse:
        """The next response, parsed."""
        return events_pb2.DeliverResponse.FromString(await self.hear_bytes())

    async def answer(self) -> int | str:
        """The number of the next block, or the name of the status."""
        response = await self.hear()
        match response.WhichOneof("Type"):
            case "block":
                return response.block.header.number
            case "filtered_block":
                return response.filtered_block.number
            case "block_and_private_data":
                return response.block_and_private_data.block.header.number
        return common_pb2.Status.Name(response.status)

    async def answers(self, count: int) -> list[int | str]:
        """So many of them."""
        return [await self.answer() for _ in range(count)]

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """The gRPC status of the stream, which has to end with no further message."""
        async with asyncio.timeout(PATIENCE):
            with suppress(grpc.aio.AioRpcError):
                assert await self.call.read() is EOF
            return await self.call.code(), await self.call.details()

    async def leave(self) -> None:
        """Close the connection."""
        await self._channel.close(None)
