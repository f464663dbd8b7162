"""State calls a second: keys read and keys written."""

from __future__ import annotations

from collections.abc import Callable

from bench.calls import Calls, fill, row
from bench.row import Row
from bench.site import Site

GROUP = "state calls in one transaction"
SMALL, LARGE = 100, 10 * 1024
"""Bytes of a value."""


async def measure(site: Site) -> list[Row]:
    """Let the chaincode read keys that are on the ledger, and put others."""
    many = site.effort.state_calls
    amounts = {SMALL: many, LARGE: many // 10}
    await fill(site, *(("puts", _on_ledger(of), amounts[of], of) for of in amounts))
    kinds: tuple[Callable[[int, int], Calls], ...] = (_gets, _puts)
    return [
        await row(site, GROUP, calls(count, of)) for calls in kinds for of, count in amounts.items()
    ]


def _gets(count: int, of: int) -> Calls:
    prefix = _on_ledger(of)
    return Calls(f"GetState, {_bytes(of)}", ("gets", prefix, count, of), count, [bytes(of)])


def _puts(count: int, of: int) -> Calls:
    return Calls(f"PutState, {_bytes(of)}", ("puts", "written", count, of), count, [b""])


def _on_ledger(of: int) -> str:
    return f"on-ledger-{of}"


def _bytes(of: int) -> str:
    return f"{of // 1024} KB" if of >= 1024 else f"{of} bytes"
