"""A transaction's whole way: endorse, order, commit; and what can be said when time runs out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum

from selvedge_cli.commit import Commit, look_up, watch_commits
from selvedge_cli.connection import Connection
from selvedge_cli.endorsement import Call, Endorsed, endorse
from selvedge_cli.errors import FAILED, INVALID, PENDING, CommandError
from selvedge_cli.ordering import NotOrdered, order, reach_ordering
from selvedge_common.protoutil.endorsements import create_transaction
from selvedge_common.protoutil.errors import MismatchedEndorsements

LOOK_UP_TIMEOUT = 5.0
"""Seconds for looking up what became of a transaction, after the user's own time-out."""


class Outcome(Enum):
    """What is known of a transaction; each has an exit status."""

    VALID = "valid"
    INVALID = "invalid"
    PENDING = "pending"
    ORDERED = "ordered"

    @property
    def exit_status(self) -> int:
        """0 for what was wanted."""
        return {Outcome.INVALID: INVALID, Outcome.PENDING: PENDING}.get(self, 0)


@dataclass(frozen=True)
class Submission:
    """A transaction that was handed to the ordering.

    Attributes:
        txid: its id.
        payload: what the chaincode answered.
        outcome: what became of it.
        commit: where it was committed, if it was.
        conclusion: a sentence for everything but a plain success.
    """

    txid: str
    payload: bytes
    outcome: Outcome
    commit: Commit | None = None
    conclusion: str = ""


class NotSubmitted(CommandError):
    """The transaction never reached the ordering, so it can never be committed."""

    exit_code = FAILED
    facts = {"outcome": "not submitted"}  # noqa: RUF012 - nobody writes into it

    def __init__(self, why: str) -> None:
        super().__init__(f"{_open_end(why)}; nothing was submitted")


async def submit(
    connection: Connection, call: Call, within: float, *, wait: bool = True
) -> Submission:
    """Run a call as a transaction.

    Args:
        within: seconds until it must be committed. Afterwards, if it was handed to the ordering,
            its fate is looked up by its id.
        wait: wait for the commit; otherwise return as soon as it is ordered.

    Raises:
        NotSubmitted: it was not handed to the ordering.
    """
    deadline = asyncio.get_running_loop().time() + within
    async with AsyncExitStack() as stack:
        doing = "the peer did not open its stream of blocks"
        try:
            async with asyncio.timeout_at(deadline):
                # Opened before anything is sent, so that no block can slip past.
                watch = await stack.enter_async_context(watch_commits(connection))
                doing = f"{call.chaincode} was not endorsed: it did not answer the peer"
                endorsed = await endorse(connection, call, within)
                envelope = create_transaction(
                    endorsed.proposal, [endorsed.response], connection.user.signer
                )
                doing = "the ordering did not answer"
                await reach_ordering(connection)
        except TimeoutError:
            raise NotSubmitted(f"{doing} within {within:g} s") from None
        except (CommandError, MismatchedEndorsements) as failure:
            raise NotSubmitted(str(failure)) from failure
        doing = "the ordering did not answer"
        try:
            async with asyncio.timeout_at(deadline):
                await order(connection, envelope)
                if not wait:
                    return Submission(endorsed.txid, endorsed.payload, Outcome.ORDERED)
                doing = "no commit was seen"
                return _committed(endorsed, await watch.find(endorsed.txid))
        except NotOrdered as refusal:
            raise NotSubmitted(str(refusal)) from refusal
        except TimeoutError:
            why = f"{doing} within {within:g} s"
        except CommandError as failure:
            why = _open_end(str(failure))
        return await _conclude(connection, endorsed, watch.height, why)


async def _conclude(
    connection: Connection, endorsed: Endorsed, height: int, why: str
) -> Submission:
    """Say by its id what became of a transaction that nobody told us about."""
    ask = f"`selvedge status --txid {endorsed.txid} --from {height + 1}`"
    try:
        async with asyncio.timeout(LOOK_UP_TIMEOUT):
            commit, last = await look_up(connection, endorsed.txid, height + 1)
    except TimeoutError:
        last_seen = f"and it could not be looked up within {LOOK_UP_TIMEOUT:g} s"
    except CommandError as failure:
        last_seen = f"and it could not be looked up ({_open_end(str(failure))})"
    else:
        if commit is not None:
            return _committed(endorsed, commit, why)
        last_seen = f"and it is in no block up to {last}"
    return Submission(
        endorsed.txid,
        endorsed.payload,
        Outcome.PENDING,
        conclusion=f"{why}, {last_seen}: it was handed to the ordering and can still be committed; "
        f"ask again with {ask}",
    )


def _committed(endorsed: Endorsed, commit: Commit, why: str = "") -> Submission:
    if commit.valid:
        outcome = Outcome.VALID
        conclusion = why and f"{why}, but the transaction is in block {commit.block} and valid"
    else:
        outcome = Outcome.INVALID
        conclusion = (
            f"{why and why + '; '}the transaction is in block {commit.block} and is invalid "
            f"({commit.code}): it changed nothing"
        )
    return Submission(endorsed.txid, endorsed.payload, outcome, commit, conclusion)


def _open_end(sentence: str) -> str:
    """A sentence, a service's own maybe, for another one to be joined to it."""
    return sentence.removesuffix(".")
