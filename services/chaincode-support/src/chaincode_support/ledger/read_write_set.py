"""What a simulation read and wrote, serialised byte for byte as a Fabric peer does.

Follows release 2.5, core/ledger/kvledger/txmgmt/rwsetutil: namespaces, reads and writes sorted by
their UTF-8 bytes, the last write of a key counts, ranges in the order in which they were opened.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from chaincode_support.ledger import metrics
from chaincode_support.ledger.errors import SimulationTooLarge
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2

# Fabric's degree: a range of up to this many rows is recorded key by key, a longer one as hashes.
RANGE_HASH_DEGREE = 50

# What an entry counts beside its key and value: short keys take memory too, and versions.
ENTRY_BYTES = 64
_DIGEST_BYTES = 32


class _Size:
    """The bytes that a simulation holds: of entries, keys and values."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    def add(self, size: int) -> None:
        """Hold `size` more bytes, or fewer when it is negative. Raises SimulationTooLarge."""
        within = self._held <= self._limit
        self._held += size
        if self._held <= self._limit:
            return
        if within:
            metrics.simulations_too_large.inc()
        raise SimulationTooLarge(
            f"The transaction reads and writes more than {self._limit} bytes, the limit of "
            "orderer.batchSize.absoluteMaxBytes, above which none can be ordered: do less in one "
            "transaction."
        )


def _entry_size(key: str) -> int:
    return ENTRY_BYTES + len(key.encode())


def _metadata_size(key: str, entries: Mapping[str, bytes]) -> int:
    return _entry_size(key) + sum(_entry_size(name) + len(value) for name, value in entries.items())


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
        self._pending_size = 0
        self._levels: list[list[bytes]] = []  # [0] is level 1, the leaves

    @property
    def size(self) -> int:
        """Bytes held now."""
        return self._pending_size + _DIGEST_BYTES * sum(map(len, self._levels))

    def add(self, key: str, version: Version) -> None:
        """Record the next row."""
        self._pending.append(key_read(key, version))
        self._pending_size += _entry_size(key)
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
        self._pending_size = 0
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

    def __init__(self, namespace: str, start: str, end: str, size: _Size) -> None:
        size.add(_entry_size(start) + len(end.encode()))
        self.namespace = namespace
        self._size = size
        self._start = start
        self._end = end
        self._last = ""
        self._exhausted = False
        self._reads = RangeReads()

    def add(self, key: str, version: Version) -> None:
        """The reader is to get this row. Raises SimulationTooLarge."""
        before = self._reads.size
        self._last = key
        self._reads.add(key, version)
        self._size.add(self._reads.size - before)

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
        self.metadata_writes: dict[str, Mapping[str, bytes]] = {}

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
        for key in _in_byte_order(self.metadata_writes):
            entries = self.metadata_writes[key]
            write = result.metadata_writes.add(key=key)
            for name in _in_byte_order(entries):
                write.entries.add(name=name, value=entries[name])
        return result.SerializeToString()


class ReadWriteSet:
    """Collects the reads and writes of one simulation, at most `limit` bytes of them.

    Counted are keys, values that are written, metadata, and ENTRY_BYTES for each read, write, range
    and entry of metadata. What goes beyond raises SimulationTooLarge, and so does everything new
    after it.
    """

    def __init__(self, limit: int) -> None:
        self._size = _Size(limit)
        self._namespaces: dict[str, _Namespace] = {}
        self._ranges: list[RangeRead] = []

    def read(self, namespace: str, key: str, version: Version | None) -> None:
        """A key was read; `version` is None when it did not exist."""
        reads = self._namespace(namespace).reads
        if key not in reads:
            self._size.add(_entry_size(key))
        reads[key] = version

    def write(self, namespace: str, key: str, value: bytes) -> None:
        """A key is to be written, or deleted when `value` is empty."""
        writes = self._namespace(namespace).writes
        before = writes.get(key)
        new = _entry_size(key) if before is None else -len(before)
        self._size.add(new + len(value))
        writes[key] = value

    def write_metadata(self, namespace: str, key: str, entries: Mapping[str, bytes]) -> None:
        """All of a key's metadata is to become `entries`, or to be deleted when there are none."""
        writes = self._namespace(namespace).metadata_writes
        before = writes.get(key)
        held = 0 if before is None else _metadata_size(key, before)
        self._size.add(_metadata_size(key, entries) - held)
        writes[key] = dict(entries)

    @property
    def has_writes(self) -> bool:
        """Whether anything is to be written, deleted, or given other metadata."""
        return any(part.writes or part.metadata_writes for part in self._namespaces.values())

    def range(self, namespace: str, start: str, end: str) -> RangeRead:
        """A range was opened; the returned record follows its reader."""
        self._namespace(namespace)
        read = RangeRead(namespace, start, end, self._size)
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
        part = self._namespaces.get(name)
        if part is None:
            part = self._namespaces[name] = _Namespace()
        return part


def _in_byte_order(names: Iterable[str]) -> list[str]:
    # UTF-8 keeps the order of code points, so comparing str is comparing bytes.
    return sorted(names)
