"""Puts a second, one by one and in the write batches of Fabric 3.1."""

from __future__ import annotations

from dataclasses import replace

from bench.calls import Calls, size
from bench.calls import measure as measure_calls
from bench.comparison import beside
from bench.row import Row, verdict
from bench.site import Site
from chaincode_support import config
from selvedge_protos.peer.chaincode_shim_pb2 import (
    ChaincodeMessage,
    PutState,
    WriteBatchState,
    WriteRecord,
)

GROUP = "puts in one transaction"
VALUE = 100
"""Bytes of what is put."""
AIM = 10
"""How many times as many puts a second batches are to bring."""


async def measure(site: Site) -> list[Row]:
    """Let the chaincode put as many keys in both ways."""
    count, answer = site.effort.puts, size(ChaincodeMessage.RESPONSE, b"")
    put = PutState(key="put-00000", value=bytes(VALUE)).SerializeToString()
    single = Calls(
        f"{count:,} puts of {VALUE} bytes, one by one",
        ("puts", "put", count, VALUE),
        count,
        size(ChaincodeMessage.PUT_STATE, put),
        answer,
    )
    record = WriteRecord(key="put-00000", value=bytes(VALUE), type=WriteRecord.PUT_STATE)
    most = config.read().chaincode.runtime_params.max_size_write_batch
    batch = WriteBatchState(rec=[record] * most).SerializeToString()
    batches = replace(
        single,
        name=f"{count:,} puts of {VALUE} bytes, in batches",
        words=("batches", *single.words[1:]),
        request=size(ChaincodeMessage.WRITE_BATCH_STATE, batch),
        exchanges=1 / most,
    )
    by_one, in_batches = [await measure_calls(site, calls) for calls in (single, batches)]
    gain = in_batches["ours"].rate / by_one["ours"].rate
    note = f"{gain:.1f} times single puts; {verdict(f'≥ {AIM}', gain >= AIM)}"
    return [
        beside(GROUP, single.name, by_one),
        beside(GROUP, batches.name, in_batches, note),
    ]
