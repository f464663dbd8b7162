"""Programs that want each chaincode event of a channel once, whatever happens to the services."""

import json
import subprocess
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Self

import grpc
from tests.e2e.clients import ChatClient, Client, interest, of_events
from tests.e2e.stack import SELVEDGE, Stack

from selvedge_protos.peer import events_pb2

CHAINCODE = "asset-transfer"
PAUSE = 0.1
"""Seconds until one that lost its stream calls again."""


class Follower(ABC):
    """One that follows the channel on a thread of its own, and handles block after block.

    Args:
        stack: where.
        start: the first block.

    Attributes:
        told: the transactions of the events that it has handled, in order.
    """

    def __init__(self, stack: Stack, start: int) -> None:
        self.told: list[str] = []
        self.next = start
        self.stack = stack
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self.leave()
        self._thread.join()

    @abstractmethod
    def follow(self) -> None:
        """Handle what comes from block `next` on, until the stream ends."""

    @abstractmethod
    def leave(self) -> None:
        """End the stream."""

    def handle(self, block: int, transactions: list[str]) -> None:
        """Handle a block's events."""
        self.told += transactions
        self.next = block + 1

    def _run(self) -> None:
        while not self._left.is_set():
            # The hub may be away, or not as far as this one is.
            with suppress(grpc.RpcError, AssertionError):
                self.follow()
            self._left.wait(PAUSE)


class ByChat(Follower):
    """Names the block to begin with, and knows by FILTEREDBLOCK that a block was told. What it has
    heard of one that was not it forgets, since that comes again."""

    _chat: ChatClient | None = None

    def follow(self) -> None:
        interests = [
            interest(events_pb2.CHAINCODE, CHAINCODE),
            interest(events_pb2.FILTEREDBLOCK),
        ]
        with ChatClient(self.stack, interests, reading=False, start_block=self.next) as chat:
            self._chat = chat
            heard = []
            for event in chat.stream():
                if event.HasField("chaincode_event"):
                    heard.append(event.chaincode_event.tx_id)
                else:
                    self.handle(event.filtered_block.number, heard)
                    heard = []

    def leave(self) -> None:
        if self._chat is not None:
            self._chat.close()


class ByDeliver(Follower):
    """Asks the hub for the block after the last one."""

    _client: Client | None = None

    def follow(self) -> None:
        with Client(self.stack, blocks="events") as client:
            self._client = client
            for block in client.filtered_blocks(self.next, timeout=None):
                self.handle(block.number, of_events(block))

    def leave(self) -> None:
        if self._client is not None:
            self._client.close()


class ByCommand(Follower):
    """Runs `selvedge events --json`, once."""

    _command: subprocess.Popen[str] | None = None

    def follow(self) -> None:
        words = ("events", "--type", "chaincode", "--from", str(self.next), "--json")
        self._command = subprocess.Popen(
            [SELVEDGE, *words],
            cwd=self.stack.folder,
            env=self.stack.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        with self._command as command:
            assert command.stdout is not None
            for line in command.stdout:
                self.told.append(json.loads(line)["txid"])
        # It is not run again: it has to come through everything by itself.
        self._left.wait()

    def leave(self) -> None:
        if self._command is not None:
            self._command.terminate()


FOLLOWERS = (ByChat, ByDeliver, ByCommand)
