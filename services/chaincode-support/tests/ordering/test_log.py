"""The ordering log's own write-ahead log stays bounded, and says how large it is."""

import sqlite3
from contextlib import closing
from pathlib import Path

from prometheus_client import REGISTRY
from testchannel import CHANNEL

from chaincode_support.ordering import SqliteLog
from selvedge_common.protoutil import blocks

MAX_BYTES = 1 << 20
ENVELOPE = bytes(200_000)


def wal(log: SqliteLog) -> int:
    return log.file.with_name(f"{log.file.name}-wal").stat().st_size


def told() -> float | None:
    return REGISTRY.get_sample_value("ordering_wal_bytes", {"channel": CHANNEL})


def append(log: SqliteLog) -> None:
    log.append(blocks.new_block(*log.tip, [ENVELOPE]))


def test_a_long_reader_keeps_its_snapshot_and_the_log_shrinks_after_it(tmp_path: Path) -> None:
    with closing(SqliteLog.open(tmp_path, CHANNEL, max_wal_bytes=MAX_BYTES)) as log:
        append(log)
        with closing(sqlite3.connect(log.file, isolation_level=None)) as backup:
            backup.execute("BEGIN")
            assert backup.execute("SELECT count(*) FROM block").fetchone() == (1,)
            for _ in range(8):
                append(log)
            assert told() == wal(log) > MAX_BYTES
            assert backup.execute("SELECT count(*) FROM block").fetchone() == (1,)
        log._wal._not_before = 0.0
        append(log)
        assert told() == wal(log) < MAX_BYTES
        assert log.tip.height == 10


def test_what_it_grew_beyond_the_bound_is_given_back_when_it_begins_anew(tmp_path: Path) -> None:
    with closing(SqliteLog.open(tmp_path, CHANNEL, max_wal_bytes=MAX_BYTES)) as log:
        # One transaction is as large as it is.
        log.append(blocks.new_block(*log.tip, [bytes(3 * MAX_BYTES)]))
        append(log)
        assert told() == wal(log) < MAX_BYTES
