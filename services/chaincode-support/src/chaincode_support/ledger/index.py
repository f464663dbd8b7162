"""Where each transaction is, by its id."""

import sqlite3
from collections.abc import Sequence

from selvedge_common.protoutil.errors import ValidationCode

# The first transaction with an id keeps it: a duplicate must not hide the original's fate.
_ADD = "INSERT OR IGNORE INTO tx (txid, block, position, code) VALUES (?, ?, ?, ?)"


def add(
    connection: sqlite3.Connection,
    number: int,
    txids: Sequence[str],
    codes: Sequence[ValidationCode],
) -> None:
    """Note the ids of block `number`'s transactions, in their order, with their codes.

    An empty id is one that no signature has proved: whoever used it must not keep it from others.
    """
    connection.executemany(
        _ADD,
        (
            (txid, number, position, code)
            for position, (txid, code) in enumerate(zip(txids, codes, strict=True))
            if txid
        ),
    )
