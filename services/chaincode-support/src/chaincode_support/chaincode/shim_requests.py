"""What a running transaction may ask of its peer, one function per request.

Every function takes the transaction and the message, and gives the payload of the RESPONSE or a
coroutine that will; it raises RequestError, or a LedgerError, with the reason for the ERROR. Those
that give the payload run inside the stream's callback, so they never wait. Follows
core/chaincode/handler.go of Fabric 1.0.6, 2.5 and 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from chaincode_support.chaincode.errors import ChaincodeError, RequestError
from chaincode_support.chaincode.queries import read_page
from chaincode_support.chaincode.simulator import PageOfRows, Rows
from chaincode_support.chaincode.transaction_contexts import TransactionContext
from selvedge_common.protoutil.field_count import has_more_fields
from selvedge_common.protoutil.proposals import MAX_FIELDS
from selvedge_common.quoting import printable
from selvedge_protos.ledger.queryresult.kv_query_result_pb2 import KV, KeyModification
from selvedge_protos.peer.chaincode_pb2 import ChaincodeSpec
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    DelState,
    GetHistoryForKey,
    GetQueryResult,
    GetState,
    GetStateByRange,
    GetStateMetadata,
    GetStateMultiple,
    GetStateMultipleResult,
    PurgePrivateState,
    PutState,
    PutStateMetadata,
    QueryMetadata,
    QueryResponse,
    QueryStateClose,
    QueryStateNext,
    StateMetadata,
    StateMetadataResult,
    WriteBatchState,
    WriteRecord,
)

M = TypeVar("M", bound=Message)
# ChaincodeSpec.input.
_INPUT_PATH = (3,)

Answer = bytes | Coroutine[Any, Any, bytes]
Handle = Callable[[TransactionContext, ChaincodeMessage], Answer]


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


def get_state(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """GET_STATE: the value, empty when there is none. Never the transaction's own writes."""
    collection, key = _key(GetState, message)
    if collection:
        return context.simulator.get_private(context.namespace, collection, key) or b""
    return context.simulator.get_state(context.namespace, key) or b""


def get_state_multiple(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """GET_STATE_MULTIPLE: the values in the order of the keys, empty where there is none."""
    request = _parse_offered(
        GetStateMultiple, message, "keys", context.settings.max_multiple_keys, "GetMultipleKeys"
    )
    namespace, simulator = context.namespace, context.simulator
    values: list[bytes] = []
    size = 0
    for key in request.keys:
        if request.collection:
            value = simulator.get_private(namespace, request.collection, key) or b""
        else:
            value = simulator.get_state(namespace, key) or b""
        size += len(value)
        # What does not fit one message is not collected first.
        if size > context.max_answer:
            raise RequestError(
                f"RESOURCE_EXHAUSTED: the first {len(values) + 1} values have {size} bytes, more "
                f"than the {context.max_answer} of peer.maxSendMsgSize; ask for fewer keys at once"
            )
        values.append(value)
    return GetStateMultipleResult(values=values).SerializeToString()


def get_private_data_hash(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """GET_PRIVATE_DATA_HASH: the hash of a private value, empty when there is none."""
    request = _parse(GetState, message.payload)
    found = context.simulator.get_private_hash(context.namespace, request.collection, request.key)
    return found or b""


def put_state(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """PUT_STATE. The answer's payload is empty: Node hands it to the contract as the result."""
    request = _parse(PutState, message.payload)
    _put(context, request.collection, request.key, request.value)
    return b""


def delete_state(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """DEL_STATE; deleting what is not there is fine. The answer's payload is empty."""
    _delete(context, *_key(DelState, message))
    return b""


def purge_private_data(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """PURGE_PRIVATE_DATA."""
    request = _parse(PurgePrivateState, message.payload)
    _purge(context, request.collection, request.key)
    return b""


def write_batch_state(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """WRITE_BATCH_STATE: all of its records, in their order."""
    batch = _parse_offered(
        WriteBatchState, message, "rec", context.settings.max_write_batch, "WriteBatch"
    )
    for record in batch.rec:
        if record.type == WriteRecord.PUT_STATE:
            _put(context, record.collection, record.key, record.value)
        elif record.type == WriteRecord.DEL_STATE:
            _delete(context, record.collection, record.key)
        elif record.type == WriteRecord.PUT_STATE_METADATA:
            _put_metadata(context, record.collection, record.key, record.metadata)
        elif record.type == WriteRecord.PURGE_PRIVATE_DATA:
            _purge(context, record.collection, record.key)
        else:
            raise RequestError(f"the batch has a record of the unknown type {record.type}")
    return b""


def get_state_metadata(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """GET_STATE_METADATA: all metadata of a key."""
    request = _parse(GetStateMetadata, message.payload)
    found: Mapping[str, bytes]
    if request.collection:
        found = context.simulator.get_private_metadata(
            context.namespace, request.collection, request.key
        )
    else:
        found = context.simulator.get_metadata(context.namespace, request.key)
    return StateMetadataResult(
        entries=[StateMetadata(metakey=name, value=found[name]) for name in sorted(found)]
    ).SerializeToString()


def put_state_metadata(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """PUT_STATE_METADATA: as in Fabric the one entry replaces all that the key had."""
    request = _parse(PutStateMetadata, message.payload)
    _put_metadata(context, request.collection, request.key, request.metadata)
    return b""


def get_state_by_range(context: TransactionContext, message: ChaincodeMessage) -> Answer:
    """GET_STATE_BY_RANGE: the first rows from startKey up to, without, endKey, or one page."""
    request = _parse(GetStateByRange, message.payload)
    start, end, namespace = request.startKey, request.endKey, context.namespace
    paging = _parse(QueryMetadata, request.metadata)
    simulator = context.simulator
    if request.collection:
        return _start(
            context, lambda: simulator.private_range(namespace, request.collection, start, end)
        )
    if rows := _page_rows(context, paging):
        return _page(context, simulator.range_page(namespace, start, end, rows, paging.bookmark))
    return _start(context, lambda: simulator.range(namespace, start, end))


def get_query_result(context: TransactionContext, message: ChaincodeMessage) -> Answer:
    """GET_QUERY_RESULT: what a query in the state database's language finds."""
    request = _parse(GetQueryResult, message.payload)
    paging = _parse(QueryMetadata, request.metadata)
    simulator, namespace = context.simulator, context.namespace
    if request.collection:
        return _start(
            context, lambda: simulator.private_query(namespace, request.collection, request.query)
        )
    if rows := _page_rows(context, paging):
        return _page(context, simulator.query(namespace, request.query, rows, paging.bookmark))
    return _start(context, lambda: simulator.query(namespace, request.query, 0, ""))


def get_history_for_key(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """GET_HISTORY_FOR_KEY: every value that the key had, the newest first."""
    key = _parse(GetHistoryForKey, message.payload).key
    return context.queries.start(
        lambda: _Marshalled(context.simulator.history(context.namespace, key)), slow=True
    ).SerializeToString()


def query_state_next(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """QUERY_STATE_NEXT: the next rows of an open query."""
    return context.queries.next(_parse(QueryStateNext, message.payload).id).SerializeToString()


def query_state_close(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """QUERY_STATE_CLOSE; a query that has ended by itself may be closed once more."""
    identifier = _parse(QueryStateClose, message.payload).id
    context.queries.close(identifier)
    return QueryResponse(id=identifier).SerializeToString()


async def invoke_chaincode(context: TransactionContext, message: ChaincodeMessage) -> bytes:
    """INVOKE_CHAINCODE: the called chaincode's COMPLETED or ERROR, marshalled."""
    if has_more_fields(message.payload, MAX_FIELDS, _INPUT_PATH):
        raise RequestError(
            f"RESOURCE_EXHAUSTED: the call has more than {MAX_FIELDS} arguments and decorations: "
            "pass fewer, and put more into each"
        )
    spec = _parse(ChaincodeSpec, message.payload)
    context.waits_for = f"chaincode {printable(spec.chaincode_id.name)}, which it called"
    try:
        ended = await context.invoke(context.transaction, spec)
    except ChaincodeError as error:
        raise RequestError(f"execute failed: {error}") from error
    return ended.SerializeToString()


class _Marshalled:
    """Modifications of a key as a query gives them out."""

    __slots__ = ("_modifications",)

    def __init__(self, modifications: Iterator[KeyModification]) -> None:
        self._modifications = modifications

    def __iter__(self) -> _Marshalled:
        return self

    def __next__(self) -> bytes:
        return next(self._modifications).SerializeToString()

    def close(self) -> None:
        close = getattr(self._modifications, "close", None)
        if close is not None:
            close()


class _MarshalledRows:
    """Rows of the state as a query gives them out."""

    __slots__ = ("_namespace", "_rows")

    def __init__(self, namespace: str, rows: Rows) -> None:
        self._namespace = namespace
        self._rows = rows

    def __iter__(self) -> _MarshalledRows:
        return self

    def __next__(self) -> bytes:
        key, value = next(self._rows)
        return KV(namespace=self._namespace, key=key, value=value).SerializeToString()

    def close(self) -> None:
        self._rows.close()


class _MarshalledPage(_MarshalledRows):
    __slots__ = ("_page",)

    def __init__(self, namespace: str, page: PageOfRows) -> None:
        super().__init__(namespace, page)
        self._page = page

    @property
    def bookmark(self) -> str:
        return self._page.bookmark


def _start(context: TransactionContext, open_rows: Callable[[], Rows]) -> bytes:
    return context.queries.start(
        lambda: _MarshalledRows(context.namespace, open_rows())
    ).SerializeToString()


def _page_rows(context: TransactionContext, paging: QueryMetadata) -> int:
    """Rows of the page that is asked for; 0 when none is."""
    if not (paging.pageSize or paging.bookmark):
        return 0
    most = context.settings.max_page_rows
    return min(paging.pageSize, most) if paging.pageSize > 0 else most


async def _page(context: TransactionContext, page: PageOfRows) -> bytes:
    context.waits_for = "a page of rows"
    found = await read_page(_MarshalledPage(context.namespace, page), context.max_answer)
    return found.SerializeToString()


def _put(context: TransactionContext, collection: str, key: str, value: bytes) -> None:
    if collection:
        context.simulator.put_private(context.namespace, collection, _named(key), value)
    else:
        context.simulator.put_state(context.namespace, _named(key), value)


def _delete(context: TransactionContext, collection: str, key: str) -> None:
    if collection:
        context.simulator.delete_private(context.namespace, collection, _named(key))
    else:
        context.simulator.delete_state(context.namespace, _named(key))


def _purge(context: TransactionContext, collection: str, key: str) -> None:
    if not collection:
        raise RequestError("only private data is purged: name its collection")
    context.simulator.purge_private(context.namespace, collection, _named(key))


def _put_metadata(
    context: TransactionContext, collection: str, key: str, metadata: StateMetadata
) -> None:
    entries = {metadata.metakey: metadata.value}
    if collection:
        context.simulator.put_private_metadata(context.namespace, collection, _named(key), entries)
    else:
        context.simulator.put_metadata(context.namespace, _named(key), entries)


def _parse_offered(
    kind: type[M], message: ChaincodeMessage, repeated: str, limit: int, setting: str
) -> M:
    """A request that READY offered, with at most `limit` of what is repeated in it."""
    if not limit:
        raise RequestError(
            f"this peer did not offer it (chaincode.runtimeParams.use{setting} is off)"
        )
    # Counted before it is parsed: of empty ones a message holds millions. One field more is the
    # collection's name.
    if not has_more_fields(message.payload, limit + 1):
        request = _parse(kind, message.payload)
        if len(getattr(request, repeated)) <= limit:
            return request
    raise RequestError(
        f"RESOURCE_EXHAUSTED: it has more entries than the {limit} that READY offered "
        f"(chaincode.runtimeParams.maxSize{setting})"
    )


def _parse(kind: type[M], payload: bytes) -> M:
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise RequestError(
            f"the payload ({len(payload)} bytes) is not a {kind.DESCRIPTOR.full_name}: {error}"
        ) from error


def _key(kind: type[GetState] | type[DelState], message: ChaincodeMessage) -> tuple[str, str]:
    """Collection and key of a read or deletion, in either dialect.

    Release 1.0 shims send the raw key and no channel; from 1.1 on the channel is set and the
    payload is a message. The channel decides, as the bytes alone could be either.
    """
    if message.channel_id:
        request = _parse(kind, message.payload)
        return request.collection, request.key
    try:
        return "", message.payload.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"the key is not UTF-8: {error}") from error


def _named(key: str) -> str:
    if not key:
        raise RequestError("the key is empty; a key to write needs at least one character")
    return key


_T = ChaincodeMessage

REQUESTS: dict[int, ShimRequest] = {
    _T.GET_STATE: ShimRequest("GetState", get_state),
    _T.GET_STATE_MULTIPLE: ShimRequest("GetStateMultiple", get_state_multiple),
    _T.GET_PRIVATE_DATA_HASH: ShimRequest("GetPrivateDataHash", get_private_data_hash),
    _T.PUT_STATE: ShimRequest("PUT_STATE", put_state, writes=True),
    _T.DEL_STATE: ShimRequest("DEL_STATE", delete_state, writes=True),
    _T.PURGE_PRIVATE_DATA: ShimRequest("PURGE_PRIVATE_DATA", purge_private_data, writes=True),
    _T.WRITE_BATCH_STATE: ShimRequest("WRITE_BATCH_STATE", write_batch_state, writes=True),
    _T.GET_STATE_METADATA: ShimRequest("GetStateMetadata", get_state_metadata),
    _T.PUT_STATE_METADATA: ShimRequest("PUT_STATE_METADATA", put_state_metadata, writes=True),
    _T.GET_STATE_BY_RANGE: ShimRequest("GetStateByRange", get_state_by_range),
    _T.GET_QUERY_RESULT: ShimRequest("GetQueryResult", get_query_result),
    _T.GET_HISTORY_FOR_KEY: ShimRequest("GetHistoryForKey", get_history_for_key),
    _T.QUERY_STATE_NEXT: ShimRequest("QueryStateNext", query_state_next),
    _T.QUERY_STATE_CLOSE: ShimRequest("QueryStateClose", query_state_close),
    _T.INVOKE_CHAINCODE: ShimRequest("INVOKE_CHAINCODE", invoke_chaincode, writes=True),
}
