"""What a running transaction needs of the ledger. `ledger.Simulator` is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from selvedge_protos.ledger.queryresult.kv_query_result_pb2 import KeyModification


class Rows(Protocol):
    """Keys and values in key order, read as they are asked for."""

    def __iter__(self) -> Iterator[tuple[str, bytes]]: ...

    def __next__(self) -> tuple[str, bytes]: ...

    def close(self) -> None: ...


class PageOfRows(Rows, Protocol):
    """The rows of one page."""

    @property
    def bookmark(self) -> str:
        """Where the next page begins, once all rows are read; empty after the last page."""


class Simulator(Protocol):
    """One snapshot to read, and a place for what is written.

    Every method raises a LedgerError whose sentence is for the chaincode: for what goes beyond
    the transaction's bounds, and for what this ledger does not keep.
    """

    def get_state(self, namespace: str, key: str, /) -> bytes | None: ...

    def put_state(self, namespace: str, key: str, value: bytes, /) -> None: ...

    def delete_state(self, namespace: str, key: str, /) -> None: ...

    def range(self, namespace: str, start: str, end: str, /) -> Rows: ...

    def range_page(
        self, namespace: str, start: str, end: str, page_size: int, bookmark: str, /
    ) -> PageOfRows: ...

    def query(self, namespace: str, query: str, page_size: int, bookmark: str, /) -> PageOfRows: ...

    def history(self, namespace: str, key: str, /) -> Iterator[KeyModification]: ...

    def get_metadata(self, namespace: str, key: str, /) -> Mapping[str, bytes]: ...

    def put_metadata(self, namespace: str, key: str, entries: Mapping[str, bytes], /) -> None: ...

    def get_private(self, namespace: str, collection: str, key: str, /) -> bytes | None: ...

    def get_private_hash(self, namespace: str, collection: str, key: str, /) -> bytes | None: ...

    def put_private(self, namespace: str, collection: str, key: str, value: bytes, /) -> None: ...

    def delete_private(self, namespace: str, collection: str, key: str, /) -> None: ...

    def purge_private(self, namespace: str, collection: str, key: str, /) -> None: ...

    def private_range(self, namespace: str, collection: str, start: str, end: str, /) -> Rows: ...

    def private_query(self, namespace: str, collection: str, query: str, /) -> Rows: ...

    def get_private_metadata(
        self, namespace: str, collection: str, key: str, /
    ) -> Mapping[str, bytes]: ...

    def put_private_metadata(
        self, namespace: str, collection: str, key: str, entries: Mapping[str, bytes], /
    ) -> None: ...
