"""The open queries of one transaction: what GET_STATE_BY_RANGE starts, NEXT continues, CLOSE ends.

Follows core/chaincode/query_response_generator.go and transaction_context.go of Fabric 2.5, but
for `has_more`, which is exact here: a page is given out only once it is known whether a row
follows it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

from chaincode_support.chaincode import metrics
from chaincode_support.chaincode.errors import RequestError
from selvedge_protos.ledger.queryresult.kv_query_result_pb2 import KV
from selvedge_protos.peer.chaincode_shim_pb2 import QueryResponse, QueryResultBytes

# Rows in a full page: the number every shim has been given since 1.0.
PAGE_ROWS = 100
# A page ends early once its rows hold this many bytes, so that large values never make a message
# that the shim's gRPC refuses (100 MB) or that weighs on the peer while it waits to be read.
PAGE_BYTES = 2 * 1024 * 1024


class _OpenQuery:
    """One iterator with the row that is known to come next."""

    __slots__ = ("_ahead", "_namespace", "_rows")

    def __init__(self, namespace: str, rows: Iterator[tuple[str, bytes]]) -> None:
        self._namespace = namespace
        self._rows = rows
        self._ahead = next(rows, None)

    def page(self) -> list[QueryResultBytes]:
        results: list[QueryResultBytes] = []
        size = 0
        while self._ahead is not None and len(results) < PAGE_ROWS and size < PAGE_BYTES:
            key, value = self._ahead
            row = KV(namespace=self._namespace, key=key, value=value).SerializeToString()
            results.append(QueryResultBytes(resultBytes=row))
            size += len(row)
            self._ahead = next(self._rows, None)
        return results

    @property
    def has_more(self) -> bool:
        return self._ahead is not None

    def close(self) -> None:
        self._ahead = None
        close = getattr(self._rows, "close", None)
        if close is not None:
            close()


class OpenQueries:
    """The queries of one transaction, at most `limit` open at a time."""

    __slots__ = ("_limit", "_open")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[str, _OpenQuery] = {}

    def __len__(self) -> int:
        return len(self._open)

    def start(
        self, namespace: str, open_rows: Callable[[], Iterator[tuple[str, bytes]]]
    ) -> QueryResponse:
        """The first page of a new query over what `open_rows` gives (key and value, in key order).

        Raises RequestError when the transaction has too many queries open: the rows are not opened
        then, as a range that is opened is one that the transaction has read.
        """
        if len(self._open) >= self._limit:
            metrics.queries_refused.inc()
            raise RequestError(
                f"RESOURCE_EXHAUSTED: the transaction has {self._limit} queries open, the limit of "
                "chaincode.limits.queries; close iterators before opening more"
            )
        identifier = str(uuid.uuid4())
        self._open[identifier] = _OpenQuery(namespace, open_rows())
        return self.next(identifier)

    def next(self, identifier: str) -> QueryResponse:
        """The next page. The last page ends the query: from then on its id is unknown.

        Raises RequestError when there is no such query (any more).
        """
        query = self._open.get(identifier)
        if query is None:
            raise RequestError("query iterator not found")
        try:
            results = query.page()
        except BaseException:
            self.close(identifier)
            raise
        if not query.has_more:
            self.close(identifier)
        return QueryResponse(results=results, has_more=query.has_more, id=identifier)

    def close(self, identifier: str) -> None:
        """End a query. One that is not open is ended already: nothing happens."""
        query = self._open.pop(identifier, None)
        if query is not None:
            query.close()

    def close_all(self) -> None:
        """End every query, when the transaction ends."""
        for identifier in list(self._open):
            self.close(identifier)
