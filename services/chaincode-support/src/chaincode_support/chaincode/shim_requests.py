"""What a running transaction may ask of its peer, one function per request.

Every function takes the transaction and the message's payload and returns the payload of the
RESPONSE, or raises RequestError with the reason for the ERROR. They run inside the stream's
callback, so they never wait. Follows core/chaincode/handler.go of Fabric 1.0.6 and 2.5.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from chaincode_support.chaincode.errors import RequestError
from chaincode_support.chaincode.transaction_contexts import TransactionContext
from chaincode_support.ledger import SimulationTooLarge
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    DelState,
    GetState,
    GetStateByRange,
    PutState,
    QueryMetadata,
    QueryResponse,
    QueryStateClose,
    QueryStateNext,
)

M = TypeVar("M", bound=Message)
Handle = Callable[[TransactionContext, ChaincodeMessage], bytes]


@dataclass(frozen=True, slots=True)
class ShimRequest:
    """How one message type is handled.

    `subject` names the request in the error for a transaction that is not running. A request that
    `writes` aborts its transaction when it fails: a chaincode that overlooks the error must not
    get half of its writes endorsed.
    """

    subject: str
    handle: Handle
    writes: bool = False


def _bounded(handle: Handle) -> Handle:
    """A handle for what makes the transaction's read-write set grow."""

    @functools.wraps(handle)
    def answer(context: TransactionContext, message: ChaincodeMessage) -> bytes:
        try:
            return handle(context, message)
        except SimulationTooLarge as error:
            raise RequestError(f"RESOURCE_EXHAUSTED: {error}") from error

    return answer


@_bounded
def get_state(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """GET_STATE: the value, empty when there is none. Never the transaction's own writes."""
    key = _key(GetState, message)
    return context.simulator.get_state(context.namespace, key) or b""


@_bounded
def put_state(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """PUT_STATE. The answer's payload is empty: Node hands it to the contract as the result."""
    request = _parse(PutState, message.payload)
    _refuse_collection(request.collection)
    context.simulator.put_state(context.namespace, _named(request.key), request.value)
    return b""


@_bounded
def delete_state(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """DEL_STATE; deleting what is not there is fine. The answer's payload is empty."""
    context.simulator.delete_state(context.namespace, _named(_key(DelState, message)))
    return b""


@_bounded
def get_state_by_range(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """GET_STATE_BY_RANGE: the first page of the rows from startKey up to, without, endKey."""
    request = _parse(GetStateByRange, message.payload)
    _refuse_collection(request.collection)
    paging = _parse(QueryMetadata, request.metadata)
    if paging.pageSize or paging.bookmark:
        raise RequestError(
            "pagination (page size and bookmark) is not supported by this peer; read the range "
            "through its iterator"
        )
    return context.queries.start(
        context.namespace,
        lambda: context.simulator.range(context.namespace, request.startKey, request.endKey),
    ).SerializeToString()


@_bounded
def query_state_next(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """QUERY_STATE_NEXT: the next page of an open query."""
    return context.queries.next(_parse(QueryStateNext, message.payload).id).SerializeToString()


def query_state_close(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """QUERY_STATE_CLOSE; a query that has ended by itself may be closed once more."""
    identifier = _parse(QueryStateClose, message.payload).id
    context.queries.close(identifier)
    return QueryResponse(id=identifier).SerializeToString()


def _unsupported(what: str) -> Handle:
    def refuse(context: TransactionContext, message: ChaincodeMessage) -> bytes:
        raise RequestError(f"{what} not supported by this peer")

    return refuse


def _parse(kind: type[M], payload: bytes) -> M:
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise RequestError(
            f"the payload ({len(payload)} bytes) is not a {kind.DESCRIPTOR.full_name}: {error}"
        ) from error


def _key(kind: type[GetState] | type[DelState], message: ChaincodeMessage) -> str:
    """The key of a read or deletion, in either dialect.

    Release 1.0 shims send the raw key and no channel; from 1.1 on the channel is set and the
    payload is a message. The channel decides, as the bytes alone could be either.
    """
    if message.channel_id:
        request = _parse(kind, message.payload)
        _refuse_collection(request.collection)
        return request.key
    try:
        return message.payload.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"the key is not UTF-8: {error}") from error


def _named(key: str) -> str:
    if not key:
        raise RequestError("the key is empty; a key to write needs at least one character")
    return key


def _refuse_collection(collection: str) -> None:
    if collection:
        raise RequestError(
            f"private data (collection {collection!r}) is not supported by this peer"
        )


_T = ChaincodeMessage

REQUESTS: dict[int, ShimRequest] = {
    _T.GET_STATE: ShimRequest("GetState", get_state),
    _T.PUT_STATE: ShimRequest("PUT_STATE", put_state, writes=True),
    _T.DEL_STATE: ShimRequest("DEL_STATE", delete_state, writes=True),
    _T.GET_STATE_BY_RANGE: ShimRequest("GetStateByRange", get_state_by_range),
    _T.QUERY_STATE_NEXT: ShimRequest("QueryStateNext", query_state_next),
    _T.QUERY_STATE_CLOSE: ShimRequest("QueryStateClose", query_state_close),
    _T.INVOKE_CHAINCODE: ShimRequest(
        "INVOKE_CHAINCODE", _unsupported("calling another chaincode is"), writes=True
    ),
    _T.GET_QUERY_RESULT: ShimRequest("GetQueryResult", _unsupported("rich queries are")),
    _T.GET_HISTORY_FOR_KEY: ShimRequest("GetHistoryForKey", _unsupported("key history is")),
    _T.GET_STATE_METADATA: ShimRequest("GetStateMetadata", _unsupported("state metadata is")),
    _T.PUT_STATE_METADATA: ShimRequest(
        "PUT_STATE_METADATA", _unsupported("state metadata is"), writes=True
    ),
    _T.GET_PRIVATE_DATA_HASH: ShimRequest("GetPrivateDataHash", _unsupported("private data is")),
    _T.PURGE_PRIVATE_DATA: ShimRequest(
        "PURGE_PRIVATE_DATA", _unsupported("private data is"), writes=True
    ),
    _T.WRITE_BATCH_STATE: ShimRequest(
        "WRITE_BATCH_STATE", _unsupported("write batches are"), writes=True
    ),
    _T.GET_STATE_MULTIPLE: ShimRequest("GetStateMultiple", _unsupported("multi-key reads are")),
}
