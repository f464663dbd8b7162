"""The open queries of one transaction: what a request starts, NEXT continues, CLOSE ends.

Follows core/chaincode/query_response_generator.go and transaction_context.go of Fabric 2.5, but
for `has_more`, which is exact here: a batch is given out only once it is known whether a row
follows it.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Protocol

from chaincode_support.chaincode import metrics
from chaincode_support.chaincode.errors import RequestError
from selvedge_protos.peer.chaincode_shim_pb2 import (
    QueryResponse,
    QueryResponseMetadata,
    QueryResultBytes,
)

# Rows in a full batch: the number every shim has been given since 1.0.
BATCH_ROWS = 100
# A batch ends early once its rows hold this many bytes, so that large values never make a message
# that the shim's gRPC refuses (100 MB) or that weighs on the peer while it waits to be read.
BATCH_BYTES = 2 * 1024 * 1024
# Where each row costs as much as the block that it is in, a batch also ends after so many seconds,
# so that others get their turn. Nowhere else: how far a range was read is in the read-write set,
# which must not depend on a clock.
SLOW_BATCH_SECONDS = 0.005
# A page has as many rows as its chaincode asked for, in one message: others get their turn
# whenever this many have been read.
_ROWS_AT_ONCE = 500


class Rows(Protocol):
    """Marshalled results, read as they are asked for."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def close(self) -> None: ...


class Page(Rows, Protocol):
    """The results of one page."""

    @property
    def bookmark(self) -> str:
        """Where the next page begins, once all of this one is read."""


class _OpenQuery:
    """One iterator with the row that is known to come next."""

    __slots__ = ("_ahead", "_rows", "_slow")

    def __init__(self, rows: Rows, slow: bool) -> None:
        self._rows = rows
        self._slow = slow
        self._ahead = next(rows, None)

    def batch(self) -> list[QueryResultBytes]:
        results: list[QueryResultBytes] = []
        size = 0
        end = time.monotonic() + SLOW_BATCH_SECONDS if self._slow else math.inf
        while self._ahead is not None and len(results) < BATCH_ROWS and size < BATCH_BYTES:
            results.append(QueryResultBytes(resultBytes=self._ahead))
            size += len(self._ahead)
            self._ahead = next(self._rows, None)
            if self._slow and time.monotonic() > end:
                break
        return results

    @property
    def has_more(self) -> bool:
        return self._ahead is not None

    def close(self) -> None:
        self._ahead = None
        self._rows.close()


class OpenQueries:
    """The queries of one transaction, at most `limit` open at a time."""

    __slots__ = ("_limit", "_open")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[str, _OpenQuery] = {}

    def __len__(self) -> int:
        return len(self._open)

    def start(self, open_rows: Callable[[], Rows], *, slow: bool = False) -> QueryResponse:
        """The first batch of a new query over what `open_rows` gives, each row of which may be
        `slow` to read.

        Raises RequestError when the transaction has too many queries open: the rows are not opened
        then, as a range that is opened is one that the transaction has read.
        """
        if len(self._open) >= self._limit:
            metrics.queries_refused.inc()
            raise RequestError(
                f"RESOURCE_EXHAUSTED: the transaction has {self._limit} queries open, the limit of "
                "chaincode.limits.queries; close iterators before opening more"
            )
        identifier = _new_identifier()
        self._open[identifier] = _OpenQuery(open_rows(), slow)
        return self.next(identifier)

    def next(self, identifier: str) -> QueryResponse:
        """The next batch. The last one ends the query: from then on its id is unknown.

        Raises RequestError when there is no such query (any more).
        """
        query = self._open.get(identifier)
        if query is None:
            raise RequestError("query iterator not found")
        try:
            results = query.batch()
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


async def read_page(page: Page, max_bytes: int) -> QueryResponse:
    """All of a page, with the bookmark of the next one; the page is closed.

    Raises RequestError when its rows hold more than `max_bytes`: they must fit one message.
    """
    results: list[QueryResultBytes] = []
    size = 0
    try:
        for row in page:
            results.append(QueryResultBytes(resultBytes=row))
            size += len(row)
            if size > max_bytes:
                metrics.limit_refusals.labels("messageBytes").inc()
                raise RequestError(
                    f"RESOURCE_EXHAUSTED: the page's first {len(results)} rows have {size} bytes, "
                    f"more than the {max_bytes} of one message (peer.maxSendMsgSize); ask for "
                    "smaller pages"
                )
            if len(results) % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        metadata = QueryResponseMetadata(fetched_records_count=len(results), bookmark=page.bookmark)
    finally:
        page.close()
    return QueryResponse(
        results=results, id=_new_identifier(), metadata=metadata.SerializeToString()
    )


def _new_identifier() -> str:
    return str(uuid.uuid4())
