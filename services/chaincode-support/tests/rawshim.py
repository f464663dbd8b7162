"""A raw shim that says exactly what a test wants, and the peer's side that it talks to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import Message

from chaincode_support.chaincode.executor import Transaction
from chaincode_support.chaincode.registry import Registry
from chaincode_support.chaincode.settings import StreamSettings
from chaincode_support.chaincode.stream import ChaincodeStream
from chaincode_support.chaincode.support import ChaincodeSupport, Execution
from chaincode_support.ledger import CheckedTransaction, Ledger, Simulator
from selvedge_common.protoutil import blocks
from selvedge_protos.ledger.queryresult.kv_query_result_pb2 import KV
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer.chaincode_event_pb2 import ChaincodeEvent
from selvedge_protos.peer.chaincode_pb2 import ChaincodeID, ChaincodeInput, ChaincodeSpec
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    GetState,
    PutState,
    QueryResponse,
)
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

    async def request(
        self, kind: int, payload: bytes | Message, transaction: ChaincodeMessage
    ) -> None:
        """A request of the running transaction, whose answer is not waited for."""
        await self.say(
            ChaincodeMessage(
                type=ChaincodeMessage.Type.ValueType(kind),
                payload=payload if isinstance(payload, bytes) else payload.SerializeToString(),
                txid=transaction.txid,
                channel_id=transaction.channel_id,
            )
        )

    async def ask(
        self, kind: int, payload: bytes | Message, transaction: ChaincodeMessage
    ) -> ChaincodeMessage:
        """A request of the running transaction, and the answer to it."""
        await self.request(kind, payload, transaction)
        return await self.hear()

    async def call(self, chaincode: str, transaction: ChaincodeMessage, *args: bytes) -> None:
        """Ask for a call of another chaincode, whose answer is not waited for."""
        await self.request(ChaincodeMessage.INVOKE_CHAINCODE, called(chaincode, *args), transaction)

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


def called(chaincode: str, *args: bytes, is_init: bool = False) -> ChaincodeSpec:
    """What INVOKE_CHAINCODE asks for."""
    return ChaincodeSpec(
        chaincode_id=ChaincodeID(name=chaincode), input=ChaincodeInput(args=args, is_init=is_init)
    )


def query_response(answer: ChaincodeMessage) -> QueryResponse:
    """The rows in an answer; the test fails when it is an ERROR instead."""
    assert answer.type == ChaincodeMessage.RESPONSE, answer
    return QueryResponse.FromString(answer.payload)


def keys(response: QueryResponse) -> list[str]:
    """The keys of the rows of a range."""
    return [KV.FromString(row.resultBytes).key for row in response.results]


def refusal(answer: ChaincodeMessage) -> str:
    """The sentence of an ERROR; the test fails when it is none."""
    assert answer.type == ChaincodeMessage.ERROR, answer
    return answer.payload.decode()


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
        stream = self.registry.peek(name)
        assert isinstance(stream, ChaincodeStream)
        return stream

    async def execute(
        self,
        chaincode: str,
        txid: str = "t1",
        *args: bytes,
        is_init: bool = False,
        creator: bytes = b"",
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
                creator=creator,
            ),
        )

    async def commit(self, namespace: str, state: Mapping[str, bytes]) -> None:
        """Put keys into the ledger, as a block with one valid transaction."""
        writes = [kv_rwset_pb2.KVWrite(key=key, value=state[key]) for key in sorted(state)]
        await commit(self.ledger, namespace, kv_rwset_pb2.KVRWSet(writes=writes))

    def results(self) -> dict[str, kv_rwset_pb2.KVRWSet]:
        """What the last transaction read and would write, by namespace."""
        results = rwset_pb2.TxReadWriteSet.FromString(self.simulators[-1].results())
        return {
            part.namespace: kv_rwset_pb2.KVRWSet.FromString(part.rwset) for part in results.ns_rwset
        }

    def writes(self) -> dict[str, bytes]:
        """What the last transaction would write."""
        return {
            write.key: write.value for rwset in self.results().values() for write in rwset.writes
        }


async def commit(ledger: Ledger, namespace: str, rwset: kv_rwset_pb2.KVRWSet) -> None:
    """Add a block with one valid transaction, which did this."""
    number = ledger.height
    done = CheckedTransaction(
        TxValidationCode.VALID, txid=f"seed-{number}", rwsets=[(namespace, rwset)]
    )
    await ledger.commit(blocks.new_block(number, ledger.last_hash, [b"seed"]), [done])


@asynccontextmanager
async def transaction(
    peer: Peer, shim: RawShim, chaincode: str = "mycc", txid: str = "0123456789abcdef"
) -> AsyncIterator[tuple["asyncio.Task[Execution]", ChaincodeMessage]]:
    """A running transaction; the test completes it or fails with it."""
    running = asyncio.create_task(peer.execute(chaincode, txid, b"invoke"))
    yield running, await shim.hear()
    if not running.done():
        running.cancel()


class Dial(Protocol):
    """Opens a stream to a peer, and registers when given a name."""

    def __call__(self, peer: Peer, name: str | None = None) -> Awaitable[RawShim]: ...


StartPeer = Callable[..., Awaitable[Peer]]
