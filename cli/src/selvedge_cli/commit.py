"""Whether a transaction is in a block, and what its verdict was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass

from selvedge_cli.connection import Connection
from selvedge_cli.deliver import FOREVER, NEWEST, Position, filtered_blocks
from selvedge_cli.errors import CommandError, NoSuchBlock
from selvedge_protos.peer import events_pb2, transaction_pb2


@dataclass(frozen=True)
class Commit:
    """A transaction's place on the ledger.

    Attributes:
        block: the number of the block that holds it.
        code: its validation code by name; "VALID" is the good one.
    """

    block: int
    code: str

    @property
    def valid(self) -> bool:
        """Whether its writes took effect."""
        return self.code == "VALID"


class CommitWatch:
    """An open stream of blocks, to be opened before the transaction is sent.

    Attributes:
        height: number of the newest block when it was opened: the transaction can only be later.
    """

    def __init__(self, height: int, following: AsyncIterator[events_pb2.FilteredBlock]) -> None:
        self.height = height
        self._following = following

    async def find(self, txid: str) -> Commit:
        """Return once a block holds the transaction.

        Raises:
            CommandError: the stream broke before that.
        """
        async for block in self._following:
            if commit := find_in(block, txid):
                return commit
        raise CommandError("the peer ended its stream of blocks")


@asynccontextmanager
async def watch_commits(connection: Connection) -> AsyncIterator[CommitWatch]:
    """Follow the filtered blocks from the newest on."""
    async with aclosing(filtered_blocks(connection, NEWEST, FOREVER, wait=True)) as following:
        newest = await anext(following)
        yield CommitWatch(newest.number, following)


async def look_up(connection: Connection, txid: str, start: Position) -> tuple[Commit | None, int]:
    """Look for a transaction in the blocks from `start` to the newest.

    Gives its commit if it is in one of them, and the number of the last block looked at.

    Raises:
        CommandError: the peer cannot be reached, or does not let this user read.
    """
    last = start - 1 if isinstance(start, int) else -1
    # Nothing at or after the start yet is an answer, too.
    with suppress(NoSuchBlock):
        async with aclosing(filtered_blocks(connection, start, NEWEST, wait=False)) as found:
            async for block in found:
                last = block.number
                if commit := find_in(block, txid):
                    return commit, last
    return None, last


def find_in(block: events_pb2.FilteredBlock, txid: str) -> Commit | None:
    """The transaction's verdict if this block holds it."""
    for transaction in block.filtered_transactions:
        if transaction.txid == txid:
            code = transaction_pb2.TxValidationCode.Name(transaction.tx_validation_code)
            return Commit(block.number, code)
    return None
