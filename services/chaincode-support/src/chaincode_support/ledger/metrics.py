"""Ledger metrics, under Fabric's names where it has them (docs/source/metrics_reference.rst)."""

from prometheus_client import Counter, Gauge, Histogram

from selvedge_common.metrics import FabricCounter

_SECONDS = (0.005, 0.01, 0.015, 0.05, 0.1, 1, 10)

blockchain_height = Gauge("ledger_blockchain_height", "Height of the chain in blocks.", ["channel"])
transaction_count = FabricCounter(
    "ledger_transaction_count",
    "Number of transactions processed.",
    ["channel", "transaction_type", "chaincode", "validation_code"],
)
block_processing_time = Histogram(
    "ledger_block_processing_time",
    "Time taken in seconds for ledger block processing.",
    ["channel"],
    buckets=_SECONDS,
)
blockstorage_commit_time = Histogram(
    "ledger_blockstorage_commit_time",
    "Time taken in seconds for committing the block to storage.",
    ["channel"],
    buckets=_SECONDS,
)
statedb_commit_time = Histogram(
    "ledger_statedb_commit_time",
    "Time taken in seconds for committing block changes to the state.",
    ["channel"],
    buckets=_SECONDS,
)
blocks_behind = Gauge(
    "ledger_blocks_behind", "Blocks that are ordered and not committed yet.", ["channel"]
)
bytes_behind = Gauge(
    "ledger_bytes_behind",
    "Bytes of the blocks that were ordered since the start and are not committed yet.",
    ["channel"],
)
commit_failing = Gauge(
    "ledger_commit_failing",
    "1 while a block cannot be committed, be it tried again or not; else 0.",
    ["channel"],
)
wal_bytes = Gauge(
    "ledger_wal_bytes", "Bytes of the write-ahead log beside the ledger's file.", ["channel"]
)
simulations_in_use = Gauge(
    "ledger_simulations_in_use", "Simulations that hold a snapshot now.", ["channel"]
)
simulations_too_large = Counter(
    "ledger_simulations_too_large",
    "Simulations that read and wrote more than a transaction that can be ordered.",
)
simulations_refused = Counter(
    "ledger_simulations_refused",
    "Simulations refused because every snapshot was in use.",
    ["channel"],
)
