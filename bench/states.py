"""State calls a second within one transaction, one after the other."""

from __future__ import annotations

import json

from bench.chaincode import Timing
from bench.client import checked
from bench.row import Row
from bench.site import Site, Usage, puts
from bench.wire import exchange_all

GROUP = "state calls in one transaction"


async def measure(site: Site) -> list[Row]:
    """Let the chaincode read, then write, a key that is on the ledger."""
    ((_, key, *_),) = calls = puts(1, prefix="state")
    await site.client.commit(await site.client.transactions(calls))
    await site.idle()
    endorse = await site.client.endorser()
    count = site.effort.state_calls
    rows = []
    for name, kind in (("GetState", "get"), ("PutState", "put")):
        usage = Usage(site.pid("chaincode-support"))
        answer = await endorse(site.client.propose("calls", kind, key, str(count)).signed)
        cpu = usage.each(count)
        timing = Timing(**json.loads(checked(answer).response.payload))
        raw = await site.raw_stream(timing.answer)
        usage = Usage(site.raw.pid)
        raw_seconds, _ = await exchange_all(raw, bytes(timing.request), count)
        raw_cpu = usage.each(count)
        raw.cancel()
        rows.append(
            Row(
                GROUP,
                f"{name}, 100 bytes",
                count / timing.seconds,
                "/s",
                raw=count / raw_seconds,
                cpu=cpu,
                raw_cpu=raw_cpu,
            )
        )
    return rows
