"""How far `selvedge events` has printed a channel, so that the next run continues there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from selvedge_cli.errors import CommandError
from selvedge_client import Checkpoint, Position

_NAME = re.compile(r"[\w.-]{1,64}")


def checkpoint_file(home: Path, name: str, channel: str, ledger: str) -> Path:
    """Where a named place in one ledger of a channel is kept.

    A home meets more than one ledger where `selvedge up` and containers take turns, or a volume is
    thrown away. Each keeps its own place, so that going back and forth repeats and misses nothing.

    Args:
        home: `$SELVEDGE_HOME`.
        name: of the checkpoint.
        channel: the channel.
        ledger: which one, as `Ledger.id` tells.

    Raises:
        CommandError: the name cannot be a file's.
    """
    if not _NAME.fullmatch(name):
        raise CommandError(
            f"{name!r} cannot name a checkpoint: use letters, digits, '.', '_' and '-'"
        )
    return home / "checkpoints" / quote(channel, safe="") / ledger[:16] / f"{name}.json"


def is_known_elsewhere(file: Path) -> bool:
    """Whether another ledger of the channel has a checkpoint of that name."""
    return any(other != file for other in file.parents[1].glob(f"*/{file.name}"))


class Progress:
    """A checkpoint that moves with a run, over nothing that was not printed.

    Args:
        checkpoint: the one to move.
        begin: the first block of the run, where the user names it; else it goes on where the
            checkpoint is.
        anew: forget where the checkpoint was: the user places it.

    Attributes:
        position: how far the run is; None before it has begun.
    """

    def __init__(self, checkpoint: Checkpoint, begin: int | None, *, anew: bool) -> None:
        stored = None if anew else checkpoint.position
        self.position = stored if begin is None else None
        self._checkpoint = checkpoint
        self._anew = anew
        # A run that begins later leaves events out which the next one has yet to print.
        self._held = stored is not None and begin is not None and (begin, 0) > stored.next

    async def advance(self, position: Position) -> None:
        """Remember what was printed, where that is further than before.

        Raises:
            CheckpointError: the home cannot be written.
        """
        self.position = position
        if self._anew:
            await self._checkpoint.place(position)
            self._anew = False
        elif not self._held:
            await self._checkpoint.advance(position)
