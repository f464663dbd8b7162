"""Whatever dies or is cut off while transactions are committed, those who follow are told of each
of them once, and in order."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from tests.e2e.clients import Client, of_events
from tests.e2e.followers import FOLLOWERS
from tests.e2e.stack import Stack, eventually
from tests.e2e.test_drills import Writer


def kill_the_hub(stack: Stack, writer: Writer) -> None:
    stack.kill("event-hub")


def kill_the_source(stack: Stack, writer: Writer) -> None:
    stack.kill("chaincode-support")


def cut_the_hub_off(stack: Stack, writer: Writer) -> None:
    with stack.cut_off("event-hub"):
        commit(writer, 20)


def commit(writer: Writer, transactions: int) -> None:
    """Wait until so many more are ordered."""
    wanted = len(writer.acknowledged) + transactions
    eventually(lambda: len(writer.acknowledged) >= wanted, f"{transactions} transactions")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fail", [kill_the_hub, kill_the_source, cut_the_hub_off])
def test_followers_are_told_of_everything_once_and_in_order(
    stack: Stack, unique: str, fail: Callable[[Stack, Writer], None]
) -> None:
    with Client(stack) as client, ExitStack() as followers:
        start = client.height()
        following = [followers.enter_context(how(stack, start)) for how in FOLLOWERS]
        with Writer(stack, unique) as writer:
            commit(writer, 20)
            fail(stack, writer)
            commit(writer, 20)
        client.committed(start, writer.acknowledged)
        blocks = client.filtered_blocks(start, client.height() - 1)
        happened = [txid for block in blocks for txid in of_events(block)]
        assert writer.acknowledged <= set(happened)
        eventually(
            lambda: all(len(follower.told) >= len(happened) for follower in following),
            "everybody is told of everything",
        )
        for follower in following:
            assert follower.told == happened, type(follower).__name__
