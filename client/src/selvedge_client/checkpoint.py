"""How far an application has handled a channel, in a file that survives it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Protocol

from selvedge_client.errors import CheckpointError
from selvedge_client.events import Position
from selvedge_common.files import write_atomically


class Progress(Protocol):
    """How far an application has handled a channel, wherever that is kept."""

    @property
    def position(self) -> Position | None:
        """How far the channel was handled; None before anything was."""

    async def advance(self, position: Position) -> None:
        """Remember that everything up to a position was handled."""


class Checkpoint:
    """A position in a file: whole, durable, and never ahead of what was handled.

    Args:
        file: where it is kept; its folder is made when it is first written.

    Raises:
        CheckpointError: the file cannot be read.
    """

    def __init__(self, file: Path | str) -> None:
        self.file = Path(file)
        self._position = self._read()
        self._writing = asyncio.Lock()

    @property
    def position(self) -> Position | None:
        """How far the channel was handled; None before anything was."""
        return self._position

    async def advance(self, position: Position) -> None:
        """Remember that everything up to a position was handled, unless that is known already.
        Returns once it survives a power cut.

        Raises:
            CheckpointError: the file cannot be written.
        """
        async with self._writing:
            if self._position is None or position.next > self._position.next:
                await self._store(position)

    async def place(self, position: Position) -> None:
        """The same, also for a position that was passed before: to handle what follows it again.

        Raises:
            CheckpointError: the file cannot be written.
        """
        async with self._writing:
            await self._store(position)

    async def _store(self, position: Position) -> None:
        await asyncio.to_thread(self._write, position)
        self._position = position

    def _read(self) -> Position | None:
        try:
            stored = json.loads(self.file.read_bytes())
            if not stored.keys() <= {"block", "transaction", "block_hash"}:
                raise ValueError("it is of another release")
            block, transaction = int(stored["block"]), stored.get("transaction")
            transaction = None if transaction is None else int(transaction)
            if not (0 <= block < 2**64 and 0 <= (transaction or 0) < 2**32):
                raise ValueError("it names no place of a channel")
            return Position(block, transaction, bytes.fromhex(stored.get("block_hash", "")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self.file} cannot be read ({error}): restore it, or delete it to begin anew"
            ) from None

    def _write(self, position: Position) -> None:
        content = {"block": position.block, "block_hash": position.block_hash.hex()}
        if position.transaction is not None:
            content["transaction"] = position.transaction
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, json.dumps(content).encode() + b"\n")
        except OSError as error:
            raise CheckpointError(
                f"{self.file} cannot be written ({error.strerror}), so events would be repeated: "
                "make room, or choose another file"
            ) from error
