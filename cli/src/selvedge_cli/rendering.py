"""Records as one line each, for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import click

from selvedge_cli.records import Record
from selvedge_common.quoting import printable

# How a part of a line is shown in colours: what it is, not what it says.
_STYLES: dict[str, dict[str, object]] = {
    "plain": {},
    "kind": {"fg": "cyan"},
    "rejection": {"fg": "red"},
    "name": {"bold": True},
    "good": {"fg": "green"},
    "bad": {"fg": "red", "bold": True},
    "aside": {"dim": True},
}
# A text, and which of these it is.
_Part = tuple[str, str]


def coloured() -> bool:
    """Whether lines go to a terminal, and the user has nothing against colours there."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def render(record: Record, *, as_json: bool, colours: bool = False) -> str:
    """One line: JSON, or what a person wants to read of it."""
    if as_json:
        return json.dumps(record, ensure_ascii=False)
    return "".join(_shown(*part, colours) for part in _LINES[record["type"]](record))


class Printer:
    """Prints events up to a number of them.

    Attributes:
        left: how many are left to print; None for any number.
    """

    def __init__(self, as_json: bool, count: int | None) -> None:
        self._as_json = as_json
        self._colours = coloured()
        self.left = count

    def print(self, record: Record) -> bool:
        """Print one; True when it was the last that was asked for."""
        line = render(record, as_json=self._as_json, colours=self._colours)
        click.echo(line, color=self._colours)
        if self.left is not None:
            self.left -= 1
        return self.left == 0


def _shown(text: str, style: str, colours: bool) -> str:
    # Names and payloads are a stranger's: they must neither command the terminal nor fake a line.
    text = printable(text, limit=len(text))
    return click.style(text, **_STYLES[style]) if colours and text else text  # type: ignore[arg-type]


def _block(record: Record) -> Iterator[_Part]:
    yield f"block {record['number']}", "kind"
    yield f"  hash {record['hash'][:16]}…", "aside"
    for index, transaction in enumerate(record["transactions"]):
        yield "; " if index else "  ", "plain"
        yield from _transaction(transaction)
    if not record["transactions"]:
        yield "  ", "plain"


def _filtered(record: Record) -> Iterator[_Part]:
    yield f"filtered {record['number']}", "kind"
    yield "  ", "plain"
    for index, transaction in enumerate(record["transactions"]):
        yield "; " if index else "", "plain"
        events = [f"{event['chaincode']}.{event['name']}" for event in transaction["events"]]
        yield from _words(
            [_subject(transaction), _verdict(transaction), *((e, "name") for e in events)]
        )


def _chaincode(record: Record) -> Iterator[_Part]:
    yield "chaincode", "kind"
    yield f" {record['block']}  " if "block" in record else " ", "kind"
    yield f"{record['chaincode']}.{record['name']}", "name"
    if record["txid"]:  # which what a producer publishes has not
        yield f"  tx {record['txid']}", "aside"
    if payload := record.get("payload", record.get("payload_base64")):
        yield f"  {payload}", "plain"


def _told(record: Record) -> Iterator[_Part]:
    kind = record["type"]
    yield kind, "rejection" if kind == "rejection" else "kind"
    yield f" {record['block']}  " if "block" in record else " ", "kind"
    yield from _transaction(record)


def _transaction(transaction: Record) -> Iterator[_Part]:
    call = ".".join(transaction[key] for key in ("chaincode", "function") if transaction.get(key))
    if not call and transaction["txid"]:
        call = transaction.get("kind", "")  # a configuration, which calls nothing
    event = f"set {transaction['event']}" if "event" in transaction else ""
    yield from _words(
        [
            _subject(transaction),
            _verdict(transaction),
            (call, "name"),
            (event, "plain"),
            (transaction.get("error", ""), "plain"),
        ]
    )


def _words(parts: list[_Part]) -> Iterator[_Part]:
    """Parts with a space between them, but for those that are empty."""
    space = ""
    for text, style in parts:
        if text:
            yield space, "plain"
            yield text, style
            space = " "


def _subject(transaction: Record) -> _Part:
    # The genesis block's configuration has no transaction id.
    txid = transaction["txid"]
    return (f"tx {txid}", "aside") if txid else (str(transaction.get("kind", "")), "plain")


def _verdict(transaction: Record) -> _Part:
    code = transaction.get("code", "")
    return code, "good" if code == "VALID" else "bad"


_LINES = {
    "block": _block,
    "filtered": _filtered,
    "chaincode": _chaincode,
    "rejection": _told,
    "transaction": _told,
}
