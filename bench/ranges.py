"""Range queries a second, each read to its end."""

from __future__ import annotations

from bench.calls import Calls, fill, row
from bench.client import NAME
from bench.row import Row
from bench.site import Site
from chaincode_support.chaincode.queries import BATCH_ROWS
from selvedge_protos.ledger.queryresult.kv_query_result_pb2 import KV
from selvedge_protos.peer.chaincode_shim_pb2 import QueryResponse, QueryResultBytes

GROUP = "range queries in one transaction"
ROWS = 1000
VALUE = 100
"""Bytes of the value in a row."""
_ID = "0" * 36
"""As long as the id of a query."""


async def measure(site: Site) -> list[Row]:
    """Let the chaincode read a range again and again."""
    await fill(site, ("puts", "row", ROWS, VALUE))
    pair = KV(namespace=NAME, key="row-00000", value=bytes(VALUE)).SerializeToString()
    rows = [QueryResultBytes(resultBytes=pair)] * BATCH_ROWS
    batches = [
        QueryResponse(results=rows, has_more=left > 0, id=_ID)
        for left in reversed(range(0, ROWS, BATCH_ROWS))
    ]
    calls = Calls(
        f"{ROWS:,} rows of {VALUE} bytes",
        ("ranges", "row", ROWS, VALUE, site.effort.ranges),
        site.effort.ranges,
        # The last one is for QUERY_STATE_CLOSE.
        [*batches, QueryResponse(id=_ID)],
    )
    return [await row(site, GROUP, calls)]
