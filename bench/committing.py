"""Transactions a second: ordered and committed, on one Broadcast stream that never waits."""

from __future__ import annotations

from bench.row import Row
from bench.site import Site, Usage, puts
from bench.wire import pipeline
from selvedge_protos.common import common_pb2
from selvedge_protos.orderer import ab_pb2

GROUP = "committing, one put each"
SUCCESS = ab_pb2.BroadcastResponse(status=common_pb2.SUCCESS)


async def measure(site: Site) -> list[Row]:
    """Order transactions that were endorsed before."""
    count = site.effort.transactions
    transactions = await site.client.transactions(puts(count, prefix="commit"))
    await site.idle()
    usage = Usage(site.pid("chaincode-support"))
    ordered, committed = await site.client.commit(transactions)
    cpu = usage.each(count)
    raw = await site.raw_stream(SUCCESS.ByteSize())
    usage = Usage(site.raw.pid)
    raw_seconds, _ = await pipeline(raw, [each.envelope for each in transactions])
    raw_cpu = usage.each(count)
    raw.cancel()
    raw_rate = count / raw_seconds
    return [
        Row(GROUP, "ordered for good", count / ordered, "/s", raw=raw_rate),
        Row(
            GROUP,
            "committed, by DeliverFiltered",
            count / committed,
            "/s",
            raw=raw_rate,
            cpu=cpu,
            raw_cpu=raw_cpu,
        ),
    ]
