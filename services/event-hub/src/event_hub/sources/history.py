"""Blocks that the hub told of before and does not keep any more, asked for at the source again."""

from collections.abc import Callable, Sequence

import grpc

from event_hub.channels.block import ChannelBlock
from event_hub.sources.deliver import METHOD, Credentials, parsed
from selvedge_common.protoutil import blocks, seek_request
from selvedge_common.protoutil.errors import BlockUnavailable
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2


class History:
    """The past of one channel.

    Args:
        channel: its name.
        addresses: peers as host:port, tried in turn.
        dial: opens a channel to an address.
        credentials: gives what the hub shows the peer.
    """

    def __init__(
        self,
        channel: str,
        addresses: Sequence[str],
        dial: Callable[[str], grpc.aio.Channel],
        credentials: Callable[[], Credentials],
    ) -> None:
        self._channel = channel
        self._addresses = addresses
        self._dial = dial
        self._credentials = credentials

    async def read(self, number: int) -> ChannelBlock:
        """Ask for one block.

        Raises:
            BlockUnavailable: no peer gives it.
        """
        reason = ""
        for address in self._addresses:
            try:
                return await self._read(address, number)
            except grpc.aio.AioRpcError as error:
                reason = str(error.details())
            except (OSError, ValueError) as error:
                reason = str(error)
        raise BlockUnavailable(
            common_pb2.SERVICE_UNAVAILABLE,
            f"block {number} of {self._channel} is not kept here, and no source gives it: {reason}",
        )

    async def _read(self, address: str, number: int) -> ChannelBlock:
        shown = self._credentials()
        request = seek_request.seek_envelope(
            self._channel,
            number,
            number,
            ab_pb2.SeekInfo.FAIL_IF_NOT_READY,
            shown.signer,
            shown.tls_cert_hash,
        )
        async with self._dial(address) as channel:
            deliver = channel.stream_stream(
                METHOD,
                request_serializer=common_pb2.Envelope.SerializeToString,
                response_deserializer=None,
            )
            async for response in deliver(iter([request])):
                block = parsed(response).block
                if block.header.number != number or block.header.data_hash != blocks.data_hash(
                    block.data.data
                ):
                    break
                return ChannelBlock(self._channel, response, block)
        raise ValueError(f"{address} did not answer with that block")
