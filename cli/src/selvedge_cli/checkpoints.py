"""How far `selvedge events` has printed a channel, so that the next run continues there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from selvedge_cli.errors import CommandError

_NAME = re.compile(r"[\w.-]{1,64}")


@dataclass(frozen=True)
class Checkpoint:
    """A named place in a channel, in a file of its own.

    Raises:
        CommandError: the name cannot be a file's.
    """

    home: Path
    name: str
    channel: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise CommandError(
                f"{self.name!r} cannot name a checkpoint: use letters, digits, '.', '_' and '-'"
            )

    @property
    def file(self) -> Path:
        """Where it is kept."""
        return self.home / "checkpoints" / f"{self.name}.json"

    def read(self) -> int | None:
        """The last block that was fully printed; None before the first."""
        try:
            stored = json.loads(self.file.read_text())
            channel, block = stored["channel"], int(stored["block"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandError(f"{self.file} cannot be read ({error!r}): delete it") from None
        if channel != self.channel:
            raise CommandError(
                f"{self.file} is about the channel {channel}: choose another name with --resume"
            )
        return block

    def write(self, block: int) -> None:
        """Remember that everything up to and with this block was printed."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.file.with_suffix(".tmp")
        fresh.write_text(json.dumps({"channel": self.channel, "block": block}) + "\n")
        # A reader, or a crash, sees the old file or the new one.
        fresh.replace(self.file)
