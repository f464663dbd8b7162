"""Records as one line each, for people."""

from __future__ import annotations

import json

from selvedge_cli.records import Record
from selvedge_common.quoting import printable


def render(record: Record, *, as_json: bool) -> str:
    """One line: JSON, or what a person wants to read of it."""
    if as_json:
        return json.dumps(record, ensure_ascii=False)
    line = _LINES[record["type"]](record)
    # Names and payloads are a stranger's: they must neither command the terminal nor fake a line.
    return printable(line, limit=len(line))


def _block(record: Record) -> str:
    transactions = "; ".join(map(_transaction, record["transactions"]))
    return f"block {record['number']}  hash {record['hash'][:16]}…  {transactions}"


def _filtered(record: Record) -> str:
    parts = []
    for transaction in record["transactions"]:
        events = [f"{event['chaincode']}.{event['name']}" for event in transaction["events"]]
        parts.append(" ".join([_subject(transaction), transaction["code"], *events]))
    return f"filtered {record['number']}  {'; '.join(parts)}"


def _chaincode(record: Record) -> str:
    place = f" {record['block']} " if "block" in record else ""
    return (
        f"chaincode{place} {record['chaincode']}.{record['name']}  tx {record['txid']}  "
        f"{_payload(record)}"
    )


def _rejection(record: Record) -> str:
    place = f" {record['block']} " if "block" in record else ""
    return f"rejection{place} {_transaction(record)}"


def _transaction(transaction: Record) -> str:
    call = ".".join(transaction[key] for key in ("chaincode", "function") if transaction.get(key))
    if not call and transaction["txid"]:
        call = transaction.get("kind", "")  # a configuration, which calls nothing
    event = f"set {transaction['event']}" if "event" in transaction else ""
    words = [
        _subject(transaction),
        transaction.get("code", ""),
        call,
        event,
        transaction.get("error", ""),
    ]
    return " ".join(word for word in words if word)


def _subject(transaction: Record) -> str:
    # The genesis block's configuration has no transaction id.
    return f"tx {transaction['txid']}" if transaction["txid"] else str(transaction.get("kind", ""))


def _payload(record: Record) -> str:
    return str(record.get("payload", record.get("payload_base64", "")))


_LINES = {
    "block": _block,
    "filtered": _filtered,
    "chaincode": _chaincode,
    "rejection": _rejection,
}
