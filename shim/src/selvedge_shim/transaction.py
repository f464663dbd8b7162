"""The requests of one running transaction, and the peer's answers to them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from selvedge_protos.peer import chaincode_shim_pb2 as wire
from selvedge_shim.errors import PeerError

Message = wire.ChaincodeMessage
Send = Callable[[Message], None]


class Transaction:
    """One transaction's half of the conversation.

    A peer takes one request per transaction at a time. Requests that a chaincode makes at once
    (with `asyncio.gather`, say) therefore wait in line here, and answers are matched by that order.
    """

    def __init__(self, message: Message, send: Send) -> None:
        self.message = message
        self._send = send
        self._requests: deque[tuple[Message, asyncio.Future[bytes]]] = deque()

    def request(self, kind: Message.Type.ValueType, payload: bytes) -> asyncio.Future[bytes]:
        """Ask the peer; the future gives the payload of its answer, or raises `PeerError`."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        message = self.reply(kind, payload)
        self._requests.append((message, future))
        if len(self._requests) == 1:
            self._send(message)
        return future

    def answer(self, message: Message) -> bool:
        """Hand a RESPONSE or ERROR to the request it answers; False when nothing was asked."""
        if not self._requests:
            return False
        request, future = self._requests.popleft()
        if self._requests:
            self._send(self._requests[0][0])
        if future.cancelled():
            return True
        if message.type == Message.RESPONSE:
            future.set_result(message.payload)
        else:
            reason = message.payload.decode(errors="replace")
            future.set_exception(PeerError(Message.Type.Name(request.type), reason))
        return True

    def reply(self, kind: Message.Type.ValueType, payload: bytes) -> Message:
        """Make a message that belongs to this transaction."""
        return Message(
            type=kind, payload=payload, txid=self.message.txid, channel_id=self.message.channel_id
        )
