"""The barest peer of one chaincode: it sends transactions, and answers whatever comes of them.

All that it says was made by who wants it said, and of what comes only the type is looked at. It
lets the yardsticks be driven by the very chaincode that drives chaincode-support.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from bench.wire import EOF, unpack

if TYPE_CHECKING:
    from selvedge_common import comm

# How each ChaincodeMessage begins, with its type.
_REGISTER = b"\x08\x01"
_ENDS = (b"\x08\x06", b"\x08\x07")
"""COMPLETED and ERROR."""


class BarePeer:
    """To be made on the running event loop; one chaincode may dial it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._send: asyncio.Future[Callable[[bytes], Awaitable[None]]] = loop.create_future()
        self._answers: Iterator[bytes] = iter(())
        self._end: asyncio.Future[bytes] = loop.create_future()

    async def transact(self, request: bytes, _: object) -> bytes:
        """Unary: sends the first message in the request, and gives the one that ends it.

        What comes in between is answered with the others, in turns.
        """
        transaction, *answers = unpack(request)
        send = await self._send
        self._answers = itertools.cycle(answers)
        self._end = asyncio.get_running_loop().create_future()
        await send(transaction)
        return await self._end

    async def register(self, _: object, context: Any) -> None:
        """Register, on grpc.aio."""
        await context.read()
        for message in _welcome():
            await context.write(message)
        self._send.set_result(context.write)
        while (message := await context.read()) is not EOF:
            if message.startswith(_ENDS):
                self._end.set_result(message)
            else:
                await context.write(next(self._answers))

    async def register_stream(self, stream: comm.MessageStream) -> None:
        """Register, by the message-stream face."""

        async def send(message: bytes) -> None:
            stream.send(message)

        def take(message: bytes) -> None:
            if message.startswith(_ENDS):
                self._end.set_result(message)
            elif message.startswith(_REGISTER):
                for each in _welcome():
                    stream.send(each)
                self._send.set_result(send)
            else:
                stream.send(next(self._answers))

        await stream.receive(take)


def _welcome() -> tuple[bytes, ...]:
    """REGISTERED, and a READY that offers what chaincode-support does."""
    # Here: what nothing but grpc.aio takes is measured too.
    from chaincode_support import config
    from selvedge_protos.peer.chaincode_pb2 import ChaincodeAdditionalParams
    from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage

    params = config.read().chaincode.runtime_params
    offer = ChaincodeAdditionalParams(
        use_write_batch=params.use_write_batch,
        max_size_write_batch=params.max_size_write_batch,
        use_get_multiple_keys=params.use_get_multiple_keys,
        max_size_get_multiple_keys=params.max_size_get_multiple_keys,
    )
    ready = ChaincodeMessage(type=ChaincodeMessage.READY, payload=offer.SerializeToString())
    registered = ChaincodeMessage(type=ChaincodeMessage.REGISTERED)
    return registered.SerializeToString(), ready.SerializeToString()
