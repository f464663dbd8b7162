"""The results of a range, page by page."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import NamedTuple

from selvedge_protos.ledger.queryresult import kv_query_result_pb2
from selvedge_protos.peer import chaincode_shim_pb2 as wire
from selvedge_shim.transaction import Transaction

Type = wire.ChaincodeMessage.Type


class KeyValue(NamedTuple):
    """One row of a range."""

    key: str
    value: bytes


class StateIterator:
    """An asynchronous iterator of `KeyValue`.

    It asks for each next page when the one before is used up, and the peer frees it after the last.
    One left early is freed by `aclose`, by leaving `async with`, or at the transaction's end.
    """

    def __init__(self, transaction: Transaction, request: wire.GetStateByRange) -> None:
        self._transaction = transaction
        self._request = request
        self._rows: deque[wire.QueryResultBytes] = deque()
        self._id = ""
        self._started = False
        self._has_more = False

    def __aiter__(self) -> StateIterator:
        return self

    async def __anext__(self) -> KeyValue:
        # A peer may send an empty page that still has more after it.
        while not self._rows:
            if not self._started:
                self._started = True
                await self._fetch(Type.GET_STATE_BY_RANGE, self._request)
            elif self._has_more:
                await self._fetch(Type.QUERY_STATE_NEXT, wire.QueryStateNext(id=self._id))
            else:
                raise StopAsyncIteration
        row = kv_query_result_pb2.KV.FromString(self._rows.popleft().resultBytes)
        return KeyValue(row.key, row.value)

    async def aclose(self) -> None:
        """Free the peer's iterator if it has more to give; nothing follows after that."""
        self._rows.clear()
        self._started = True
        if self._has_more:
            self._has_more = False
            await self._transaction.request(
                Type.QUERY_STATE_CLOSE, wire.QueryStateClose(id=self._id).SerializeToString()
            )

    async def __aenter__(self) -> StateIterator:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _fetch(
        self, kind: Type.ValueType, request: wire.GetStateByRange | wire.QueryStateNext
    ) -> None:
        # Until the answer is here there is nothing to close: a refused page has ended the query.
        self._has_more = False
        page = wire.QueryResponse.FromString(
            await self._transaction.request(kind, request.SerializeToString())
        )
        self._rows.extend(page.results)
        self._id, self._has_more = page.id, page.has_more
