"""The demonstration: a transaction of the sample chaincode, and the events it causes."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import aclosing, suppress
from dataclasses import dataclass

from selvedge_cli import chat, records
from selvedge_cli.connection import Connection
from selvedge_cli.endorsement import Call, endorse
from selvedge_cli.errors import CommandError
from selvedge_cli.local.services import CHAINCODE
from selvedge_cli.records import Record
from selvedge_cli.submission import Outcome, Submission, submit
from selvedge_client.cancellation import Cancellations

PATIENCE = 15.0
"""Seconds for the chaincode to register, for the commit, and for the events, each."""
POLL = 0.03
"""Seconds between two questions whether the chaincode is there."""


@dataclass(frozen=True)
class Demonstration:
    """What there is to show.

    Attributes:
        call: what was called, as one would type it.
        submission: the transaction.
        events: the events that it caused, as they came.
    """

    call: str
    submission: Submission
    events: list[Record]


async def demonstrate(connection: Connection) -> Demonstration:
    """Create an asset and listen to the event hub meanwhile.

    Raises:
        CommandError: a step failed, or an event did not come in time.
    """
    await _chaincode_answers(connection)
    listener = chat.Chat(connection)
    await listener.register([chat.BLOCK, chat.chaincode_interest(CHAINCODE), chat.FILTERED])
    # Fresh on a ledger that has seen demonstrations before.
    arguments = ["CreateAsset", f"asset-{secrets.token_hex(4)}", "ada", "100"]
    call = Call(CHAINCODE, [argument.encode() for argument in arguments])
    submission = await submit(connection, call, PATIENCE)
    if submission.outcome is not Outcome.VALID:
        raise CommandError(submission.conclusion)
    events = await _events_of(listener, submission.txid)
    listener.close()
    return Demonstration(" ".join([CHAINCODE, *arguments]), submission, events)


async def _chaincode_answers(connection: Connection) -> None:
    call = Call(CHAINCODE, [b"ListAssets", b"none", b"none"])
    failure: CommandError | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while True:
                cancellations = Cancellations()
                try:
                    await endorse(connection, call, PATIENCE)
                    return
                except CommandError as error:
                    cancellations.raise_if_lost()
                    failure = error
                await asyncio.sleep(POLL)
    raise CommandError(f"the sample chaincode did not answer within {PATIENCE:g} s: {failure}")


async def _events_of(listener: chat.Chat, txid: str) -> list[Record]:
    """The block, chaincode and filtered event of a transaction."""
    found: list[Record] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE), aclosing(listener.events()) as events:
            async for event in events:
                record = records.hub_record(event)
                if record is not None and txid in str(record):
                    found.append(record)
                if len(found) == 3:
                    return found
    came = ", ".join(record["type"] for record in found) or "none"
    raise CommandError(
        f"of the three events of transaction {txid} only these came within {PATIENCE:g} s: {came}"
    )
