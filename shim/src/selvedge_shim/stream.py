"""One stream to the peer: registration, then transactions until it ends.

The states and messages follow Fabric's chaincode shim protocol (`peer/chaincode_shim.proto`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable

from selvedge_protos.peer import chaincode_pb2, proposal_response_pb2
from selvedge_protos.peer import chaincode_shim_pb2 as wire
from selvedge_shim.chaincode import Chaincode, Response, error
from selvedge_shim.errors import ProtocolError
from selvedge_shim.stub import Stub
from selvedge_shim.transaction import Transaction

logger = logging.getLogger("selvedge_shim")

Message = wire.ChaincodeMessage
Register = Callable[[AsyncIterator[Message]], AsyncIterable[Message]]
TransactionKey = tuple[str, str]


class ChaincodeStream:
    """Speaks for one chaincode on one `ChaincodeSupport/Register` call."""

    def __init__(self, chaincode: Chaincode, chaincode_id: str, register: Register) -> None:
        self._chaincode = chaincode
        self._chaincode_id = chaincode_id
        self._register = register
        # None ends our half of the stream.
        self._outgoing: deque[Message | None] = deque()
        self._something_to_send = asyncio.Event()
        self._transactions: dict[TransactionKey, tuple[Transaction, asyncio.Task[None]]] = {}
        self._draining = False
        self.registered = asyncio.Event()

    async def run(self) -> None:
        """Register, and serve transactions until the peer ends the stream.

        Raises:
            ProtocolError: the peer's answer to REGISTER was neither REGISTERED nor READY.
            grpc.aio.AioRpcError: the stream failed, or the peer refused; its details say why.
        """
        incoming = aiter(self._register(self._messages()))
        try:
            await self._introduce(incoming)
            async for message in incoming:
                self._receive(message)
        finally:
            self._outgoing.clear()
            self._send(None)
            await self._abandon()

    async def drain(self) -> None:
        """Refuse new transactions, finish the running ones, then end our half of the stream."""
        self._draining = True
        while self._transactions:
            await asyncio.wait([task for _, task in self._transactions.values()])
        self._send(None)

    async def _introduce(self, incoming: AsyncIterator[Message]) -> None:
        name = chaincode_pb2.ChaincodeID(name=self._chaincode_id)
        self._send(Message(type=Message.REGISTER, payload=name.SerializeToString()))
        for expected in (Message.REGISTERED, Message.READY):
            message = await anext(incoming, None)
            if message is None:
                raise ProtocolError(f"the peer ended the stream before it sent {_name(expected)}")
            if message.type != expected:
                raise ProtocolError(
                    f"the peer sent {_name(message.type)} instead of {_name(expected)}: "
                    f"{message.payload.decode(errors='replace')}"
                )
        self.registered.set()

    def _receive(self, message: Message) -> None:
        match message.type:
            case Message.RESPONSE | Message.ERROR:
                running = self._transactions.get((message.channel_id, message.txid))
                if running is None or not running[0].answer(message):
                    name = _name(message.type)
                    logger.warning("[%.8s] the peer's %s answers nothing", message.txid, name)
            case Message.TRANSACTION | Message.INIT:
                self._begin(message)
            case Message.KEEPALIVE:
                self._send(message)
            case _:
                logger.warning("the peer sent %s, which means nothing here", _name(message.type))

    def _begin(self, message: Message) -> None:
        key = (message.channel_id, message.txid)
        transaction = Transaction(message, self._send)
        if self._draining:
            reason = f"chaincode {self._chaincode_id} is stopping"
            self._send(transaction.reply(Message.ERROR, reason.encode()))
        elif key in self._transactions:
            logger.warning("[%.8s] the peer sent a transaction that already runs", message.txid)
        else:
            task = asyncio.create_task(self._execute(transaction))
            self._transactions[key] = (transaction, task)
            task.add_done_callback(lambda _: self._transactions.pop(key, None))

    async def _execute(self, transaction: Transaction) -> None:
        is_init = transaction.message.type == Message.INIT
        run = self._chaincode.init if is_init else self._chaincode.invoke
        try:
            stub = Stub(transaction)
            response, event = await run(stub), stub.event
            if not isinstance(response, Response):
                raise TypeError(f"{run.__qualname__} must return a Response, not {response!r}")
            await stub.close()
        except Exception as failure:
            logger.exception("[%.8s] the transaction failed", transaction.message.txid)
            response, event = error(f"{type(failure).__name__}: {failure}"), None
        result = proposal_response_pb2.Response(
            status=response.status, message=response.message, payload=response.payload
        )
        completed = transaction.reply(Message.COMPLETED, result.SerializeToString())
        if event is not None:
            completed.chaincode_event.CopyFrom(event)
        self._send(completed)

    def _send(self, message: Message | None) -> None:
        self._outgoing.append(message)
        self._something_to_send.set()

    async def _messages(self) -> AsyncIterator[Message]:
        """Give what is to be sent; gRPC takes one at a time: its streams have a single writer."""
        while True:
            while self._outgoing:
                message = self._outgoing.popleft()
                if message is None:
                    return
                yield message
            self._something_to_send.clear()
            await self._something_to_send.wait()

    async def _abandon(self) -> None:
        running = [task for _, task in self._transactions.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _name(kind: int) -> str:
    known = kind in Message.Type.values()
    return Message.Type.Name(Message.Type.ValueType(kind)) if known else f"type {kind}"
