"""A raw shim that says exactly what a test wants, and the peer's side that it talks to."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import grpc.aio

from chaincode_support.chaincode.executor import Transaction
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.settings import StreamSettings
from chaincode_support.chaincode.stream import ChaincodeStream
from chaincode_support.chaincode.support import ChaincodeSupport, Execution
from chaincode_support.ledger import CheckedTransaction, Ledger, Simulator
from selvedge_common.protoutil import blocks
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer.chaincode_event_pb2 import ChaincodeEvent
from selvedge_protos.peer.chaincode_pb2 import ChaincodeID, ChaincodeInput
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage, GetState, PutState
from selvedge_protos.peer.proposal_response_pb2 import Response
from selvedge_protos.peer.transaction_pb2 import TxValidationCode

# The stubs of grpc.aio know neither this nor raw messages.
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]

CHANNEL = "mychannel"
METHOD = "/protos.ChaincodeSupport/Register"
PATIENCE = 10.0

SETTINGS = StreamSettings(
    keepalive=0,
    register_timeout=PATIENCE,
    execute_timeout=PATIENCE,
    max_transactions=100,
    max_queries=8,
    max_page_rows=1000,
    max_pending=1 << 28,
    max_write_batch=100,
    max_multiple_keys=100,
    check_certificate_name=False,
    certificate_optional=False,
)


class RawShim:
    """Says on a Register stream exactly what it is told to, bytes included."""

    def __init__(self, channel: Any) -> None:
        self._call = channel.stream_stream(METHOD)()

    async def say(self, message: ChaincodeMessage | bytes) -> None:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        await self._call.write(data)

    async def hear(self) -> ChaincodeMessage:
        """The peer's next message; the test fails when the stream ends instead."""
        async with asyncio.timeout(PATIENCE):
            data = await self._call.read()
        assert data is not EOF, f"the stream ended: {await self._call.details()}"
        return ChaincodeMessage.FromString(data)

    async def ask(
        self, kind: int, payload: bytes, transaction: ChaincodeMessage
    ) -> ChaincodeMessage:
        """A request of the running transaction, and the answer to it."""
        await self.say(
            ChaincodeMessage(
                type=ChaincodeMessage.Type.ValueType(kind),
                payload=payload,
                txid=transaction.txid,
                channel_id=transaction.channel_id,
            )
        )
        return await self.hear()

    async def put(self, key: str, value: bytes, transaction: ChaincodeMessage) -> ChaincodeMessage:
        payload = PutState(key=key, value=value).SerializeToString()
        return await self.ask(ChaincodeMessage.PUT_STATE, payload, transaction)

    async def get(self, key: str, transaction: ChaincodeMessage) -> ChaincodeMessage:
        payload = GetState(key=key).SerializeToString()
        return await self.ask(ChaincodeMessage.GET_STATE, payload, transaction)

    async def complete(
        self,
        transaction: ChaincodeMessage,
        status: int = 200,
        result: bytes = b"",
        event: ChaincodeEvent | None = None,
    ) -> None:
        await self.say(
            ChaincodeMessage(
                type=ChaincodeMessage.COMPLETED,
                payload=Response(status=status, payload=result).SerializeToString(),
                txid=transaction.txid,
                channel_id=transaction.channel_id,
                chaincode_event=event,
            )
        )

    async def register(self, name: str) -> None:
        await self.say(register(name))
        assert (await self.hear()).type == ChaincodeMessage.REGISTERED
        assert (await self.hear()).type == ChaincodeMessage.READY

    async def half_close(self) -> None:
        await self._call.done_writing()

    def cut(self) -> None:
        self._call.cancel()

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """How the peer ended the stream; what it still said before is skipped."""
        async with asyncio.timeout(PATIENCE):
            try:
                while await self._call.read() is not EOF:
                    pass
            except grpc.aio.AioRpcError:
                pass
            return await self._call.code(), await self._call.details()


def register(name: str) -> ChaincodeMessage:
    payload = ChaincodeID(name=name).SerializeToString()
    return ChaincodeMessage(type=ChaincodeMessage.REGISTER, payload=payload)


@dataclass
class Peer:
    """A chaincode listener and what is behind it."""

    address: str
    ledger: Ledger
    support: ChaincodeSupport
    simulators: list[Simulator] = field(default_factory=list)

    @property
    def registry(self) -> Registry:
        return self.support.registry

    def stream(self, name: str = "mycc") -> ChaincodeStream:
        """The stream that gets the chaincode's next transaction."""
        stream = self.registry.next(name)
        assert isinstance(stream, ChaincodeStream)
        return stream

    async def execute(
        self, chaincode: str, txid: str = "t1", *args: bytes, is_init: bool = False
    ) -> Execution:
        """Run a transaction as the endorser does; its simulator is `simulators[-1]`."""
        await self.support.launch(chaincode)
        simulator = self.ledger.simulator(txid)
        self.simulators.append(simulator)
        return await self.support.execute(
            Transaction(
                channel=CHANNEL,
                txid=txid,
                chaincode=chaincode,
                input=ChaincodeInput(args=args, is_init=is_init),
                simulator=simulator,
            ),
        )

    async def commit(self, namespace: str, state: Mapping[str, bytes]) -> None:
        """Put keys into the ledger, as a block with one valid transaction."""
        number = self.ledger.height
        with_writes = kv_rwset_pb2.KVRWSet(
            writes=[kv_rwset_pb2.KVWrite(key=key, value=state[key]) for key in sorted(state)]
        )
        transaction = CheckedTransaction(
            TxValidationCode.VALID, txid=f"seed-{number}", rwsets=[(namespace, with_writes)]
        )
        block = blocks.new_block(number, self.ledger.last_hash, [b"seed"])
        await self.ledger.commit(block, [transaction])

    def writes(self) -> dict[str, bytes]:
        """What the last transaction would write."""
        found = {}
        results = rwset_pb2.TxReadWriteSet.FromString(self.simulators[-1].results())
        for namespace in results.ns_rwset:
            for write in kv_rwset_pb2.KVRWSet.FromString(namespace.rwset).writes:
                found[write.key] = write.value
        return found


class Dial(Protocol):
    """Opens a stream to a peer, and registers when given a name."""

    def __call__(self, peer: Peer, name: str | None = None) -> Awaitable[RawShim]: ...


StartPeer = Callable[..., Awaitable[Peer]]
