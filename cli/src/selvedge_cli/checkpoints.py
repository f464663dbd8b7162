"""How far `selvedge events` has printed a channel, so that the next run continues there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from selvedge_cli.errors import CommandError
from selvedge_common.files import write_atomically

_NAME = re.compile(r"[\w.-]{1,64}")


@dataclass(frozen=True)
class Printed:
    """What of a channel was printed.

    Attributes:
        block: the last block that anything was printed of; all before it are done.
        records: how many of its events, where `--count` ended inside it; None for all of them.
    """

    block: int
    records: int | None = None

    @property
    def next(self) -> tuple[int, int]:
        """The block to go on with, and how many of its events to pass over."""
        return (self.block + 1, 0) if self.records is None else (self.block, self.records)


@dataclass(frozen=True)
class Checkpoint:
    """A named place in one ledger of a channel, in a file of its own.

    A home meets more than one ledger where `selvedge up` and containers take turns, or a volume is
    thrown away. Each keeps its own place, so that going back and forth repeats and misses nothing.

    Attributes:
        home: `$SELVEDGE_HOME`.
        name: of the checkpoint.
        channel: the channel.
        ledger: which one, as `Chain.ledger` tells.

    Raises:
        CommandError: the name cannot be a file's.
    """

    home: Path
    name: str
    channel: str
    ledger: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise CommandError(
                f"{self.name!r} cannot name a checkpoint: use letters, digits, '.', '_' and '-'"
            )

    @property
    def file(self) -> Path:
        """Where it is kept."""
        return self._channel_folder / self.ledger[:16] / f"{self.name}.json"

    @property
    def _channel_folder(self) -> Path:
        return self.home / "checkpoints" / quote(self.channel, safe="")

    @property
    def is_known_elsewhere(self) -> bool:
        """Whether another ledger of the channel has a checkpoint of that name."""
        return any(
            file.parent != self.file.parent
            for file in self._channel_folder.glob(f"*/{self.file.name}")
        )

    def read(self) -> Printed | None:
        """How far the ledger was printed; None before the first time.

        Raises:
            CommandError: the file is damaged.
        """
        try:
            stored = json.loads(self.file.read_text())
            block, records = int(stored["block"]), stored.get("records")
            return Printed(block, None if records is None else int(records))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CommandError(f"{self.file} cannot be read ({error!r}): delete it") from None

    def write(self, printed: Printed) -> None:
        """Remember what was printed, durably.

        Raises:
            CommandError: the home cannot be written.
        """
        content = {"block": printed.block}
        if printed.records is not None:
            content["records"] = printed.records
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, json.dumps(content).encode() + b"\n")
        except OSError as error:
            raise CommandError(
                f"{self.file} cannot be written ({error.strerror}), so the next run would repeat "
                "events: make room, or choose another folder with --home"
            ) from error


class Progress:
    """A checkpoint that moves with a run, forward only, and over nothing that was not printed.

    Args:
        checkpoint: the one to move.
        begin: the first block of the run, and how many of its events it passes over.
        anew: forget where the checkpoint was: the user places it.
    """

    def __init__(self, checkpoint: Checkpoint, begin: tuple[int, int], *, anew: bool) -> None:
        self._checkpoint = checkpoint
        stored = None if anew else checkpoint.read()
        self._next = (0, 0) if stored is None else stored.next
        # A run that begins later leaves events out which the next one has yet to print.
        self._held = stored is not None and begin > self._next

    def reached(self, printed: Printed) -> None:
        """Remember what was printed, where that is further than before.

        Raises:
            CommandError: the home cannot be written.
        """
        if not self._held and printed.next > self._next:
            self._checkpoint.write(printed)
            self._next = printed.next
