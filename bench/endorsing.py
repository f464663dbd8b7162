"""Endorsements a second: every check, a chaincode that does nothing, a signature."""

from __future__ import annotations

from bench.client import checked
from bench.row import Row
from bench.site import Site, Usage
from bench.wire import call_all

GROUP = "endorsing"


async def measure(site: Site) -> list[Row]:
    """Send proposals that were signed before, with 1, 8 and 32 in flight."""
    endorse = await site.client.endorser()
    await call_all(endorse, [site.client.propose("noop").signed for _ in range(20)], 8)
    rows = []
    for in_flight in (1, 8, 32):
        count = site.effort.proposals * (1 if in_flight == 1 else 3)
        requests = [site.client.propose("noop").signed for _ in range(count)]
        usage = Usage(site.pid("chaincode-support"))
        seconds, answers = await call_all(endorse, requests, in_flight)
        cpu = usage.each(count)
        for answer in answers:
            checked(answer)
        raw = await site.raw_call(len(answers[0]))
        await call_all(raw, requests[:20], in_flight)
        usage = Usage(site.raw.pid)
        raw_seconds, _ = await call_all(raw, requests, in_flight)
        rows.append(
            Row(
                GROUP,
                f"{in_flight} in flight",
                count / seconds,
                "/s",
                raw=count / raw_seconds,
                cpu=cpu,
                raw_cpu=usage.each(count),
            )
        )
    return rows
