"""Puts a second, one by one and in the write batches of Fabric 3.1."""

from __future__ import annotations

from dataclasses import replace

from bench.calls import Calls
from bench.calls import measure as measure_calls
from bench.comparison import beside
from bench.row import Row, verdict
from bench.site import Site

GROUP = "puts in one transaction"
VALUE = 100
"""Bytes of what is put."""
AIM = 10
"""How many times as many puts a second batches are to bring."""


async def measure(site: Site) -> list[Row]:
    """Let the chaincode put as many keys in both ways."""
    count = site.effort.puts
    single = Calls(
        f"{count:,} puts of {VALUE} bytes, one by one", ("puts", "put", count, VALUE), count, [b""]
    )
    batches = replace(
        single,
        name=f"{count:,} puts of {VALUE} bytes, in batches",
        words=("batches", *single.words[1:]),
    )
    by_one, in_batches = [await measure_calls(site, calls) for calls in (single, batches)]
    gain = in_batches["ours"].rate / by_one["ours"].rate
    note = f"{gain:.1f} times single puts; {verdict(f'≥ {AIM}', gain >= AIM)}"
    return [
        beside(GROUP, single.name, by_one),
        beside(GROUP, batches.name, in_batches, note),
    ]
