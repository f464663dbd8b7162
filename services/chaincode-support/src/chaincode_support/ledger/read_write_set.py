"""What a simulation read and wrote, serialised byte for byte as a Fabric peer does.

Follows release 2.5, core/ledger/kvledger/txmgmt/rwsetutil: namespaces, reads and writes sorted by
their UTF-8 bytes, the last write of a key counts, ranges in the order in which they were opened.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2

# Fabric's degree: a range of up to this many rows is recorded key by key, a longer one as hashes.
RANGE_HASH_DEGREE = 50


class Version(NamedTuple):
    """The height at which a key was written last."""

    block: int
    tx: int


def key_read(key: str, version: Version | None) -> kv_rwset_pb2.KVRead:
    """The record of one read; `version` is None when the key did not exist."""
    read = kv_rwset_pb2.KVRead(key=key)
    if version is not None:
        # Assigned through the message, so that version (0, 0) is present too.
        read.version.SetInParent()
        read.version.block_num, read.version.tx_num = version
    return read


class RangeReads:
    """The rows of one range, summarised as a Merkle tree once there are more than `degree`.

    The tree grows while rows arrive: `degree` + 1 rows make a leaf, `degree` + 1 nodes of a level
    make one node above, so memory is bounded whatever the range's length.
    """

    def __init__(self, degree: int = RANGE_HASH_DEGREE) -> None:
        self._degree = degree
        self._pending: list[kv_rwset_pb2.KVRead] = []
        self._levels: list[list[bytes]] = []  # [0] is level 1, the leaves

    def add(self, key: str, version: Version) -> None:
        """Record the next row."""
        self._pending.append(key_read(key, version))
        if len(self._pending) > self._degree:
            self._add_leaf()

    def write_to(self, info: kv_rwset_pb2.RangeQueryInfo) -> None:
        """Put the reads into `info`: nothing for no rows, else raw reads or the tree's top level.

        Can be called once, after the last row.
        """
        if not self._levels:
            if self._pending:
                info.raw_reads.kv_reads.extend(self._pending)
            return
        if self._pending:
            self._add_leaf()
        self._complete()
        summary = info.reads_merkle_hashes
        summary.max_degree = self._degree
        summary.max_level = len(self._levels)
        summary.max_level_hashes.extend(self._levels[-1])

    def _add_leaf(self) -> None:
        rows = kv_rwset_pb2.QueryReads(kv_reads=self._pending).SerializeToString()
        self._pending = []
        self._append(0, sha256(rows).digest())
        level = 0
        while len(self._levels[level]) > self._degree:
            combined = self._combine(level)
            level += 1
            self._append(level, combined)

    def _complete(self) -> None:
        level = 0
        while level < len(self._levels) - 1:
            nodes = self._levels[level]
            if len(nodes) == 1:
                # A lone node moves up as it is.
                self._levels[level + 1].append(nodes.pop())
            elif nodes:
                self._levels[level + 1].append(self._combine(level))
            level += 1
        if len(self._levels[-1]) > self._degree:
            self._append(len(self._levels), self._combine(len(self._levels) - 1))

    def _append(self, level: int, digest: bytes) -> None:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(digest)

    def _combine(self, level: int) -> bytes:
        digest = sha256(b"".join(self._levels[level])).digest()
        self._levels[level].clear()
        return digest


class RangeRead:
    """One range as its reader went through it."""

    def __init__(self, namespace: str, start: str, end: str) -> None:
        self.namespace = namespace
        self._start = start
        self._end = end
        self._last = ""
        self._exhausted = False
        self._reads = RangeReads()

    def add(self, key: str, version: Version) -> None:
        """The reader got this row."""
        self._last = key
        self._reads.add(key, version)

    def exhaust(self) -> None:
        """The reader was told that there are no more rows."""
        self._exhausted = True

    def info(self) -> kv_rwset_pb2.RangeQueryInfo:
        """The record for the read-write set; the end is the last key got if rows may remain."""
        info = kv_rwset_pb2.RangeQueryInfo(
            start_key=self._start,
            end_key=self._end if self._exhausted else self._last,
            itr_exhausted=self._exhausted,
        )
        self._reads.write_to(info)
        return info


class _Namespace:
    def __init__(self) -> None:
        self.reads: dict[str, Version | None] = {}
        self.writes: dict[str, bytes] = {}

    def build(self, ranges: list[RangeRead]) -> bytes:
        result = kv_rwset_pb2.KVRWSet()
        result.reads.extend(key_read(key, self.reads[key]) for key in _in_byte_order(self.reads))
        seen: set[tuple[str, str, bool]] = set()
        for read in ranges:
            info = read.info()
            same = (info.start_key, info.end_key, info.itr_exhausted)
            if same not in seen:
                seen.add(same)
                result.range_queries_info.append(info)
        for key in _in_byte_order(self.writes):
            value = self.writes[key]
            # As in Fabric, an empty value deletes.
            result.writes.add(key=key, is_delete=not value, value=value)
        return result.SerializeToString()


class ReadWriteSet:
    """Collects the reads and writes of one simulation."""

    def __init__(self) -> None:
        self._namespaces: dict[str, _Namespace] = {}
        self._ranges: list[RangeRead] = []

    def read(self, namespace: str, key: str, version: Version | None) -> None:
        """A key was read; `version` is None when it did not exist."""
        self._namespace(namespace).reads[key] = version

    def write(self, namespace: str, key: str, value: bytes) -> None:
        """A key is to be written, or deleted when `value` is empty."""
        self._namespace(namespace).writes[key] = value

    def range(self, namespace: str, start: str, end: str) -> RangeRead:
        """A range was opened; the returned record follows its reader."""
        self._namespace(namespace)
        read = RangeRead(namespace, start, end)
        self._ranges.append(read)
        return read

    def serialize(self) -> bytes:
        """The marshalled rwset.TxReadWriteSet. Call it once, when the simulation is over."""
        result = rwset_pb2.TxReadWriteSet(data_model=rwset_pb2.TxReadWriteSet.KV)
        for name in _in_byte_order(self._namespaces):
            ranges = [read for read in self._ranges if read.namespace == name]
            result.ns_rwset.add(namespace=name, rwset=self._namespaces[name].build(ranges))
        return result.SerializeToString()

    def _namespace(self, name: str) -> _Namespace:
        return self._namespaces.setdefault(name, _Namespace())


def _in_byte_order(names: Iterable[str]) -> list[str]:
    # UTF-8 keeps the order of code points, so comparing str is comparing bytes.
    return sorted(names)
