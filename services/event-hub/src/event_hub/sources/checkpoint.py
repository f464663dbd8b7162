"""How far the hub has read a channel, kept on its volume so that a restart goes on from there.

The position moves after a block's events were handed to the outboxes. A hub that is killed repeats
at most the blocks after its last write; it never skips one. Beside it are the configurations by
which the channel's blocks are believed.
"""

import asyncio
import json
import threading
from pathlib import Path

from event_hub import metrics
from event_hub.sources.chain import Position
from event_hub.sources.configurations import Configurations, ConfigurationsError
from selvedge_common.files import write_atomically
from selvedge_common.logs import get_logger

log = get_logger("eventhub.checkpoint")

# From one write to the next: each waits for the disk, and what a crash repeats has been told.
PACE_SECONDS = 0.1
RETRY_SECONDS = 1.0

CONFIGURATIONS = "configurations"


class CheckpointError(Exception):
    """A file that remembers the position or a configuration cannot be used; the hub must not guess
    what it held."""


class Checkpoint:
    """The remembered position of one channel.

    Args:
        folder: where the file is; it is made when it is not there.
        channel: the channel, which gives the file its name.

    Attributes:
        configurations: those that were passed up to the position; each new one is written before a
            position after it.

    Raises:
        CheckpointError: the file is there and does not hold a position of this channel, or the
            last configuration before it cannot be used.
    """

    def __init__(self, folder: Path, channel: str) -> None:
        self.file = folder / f"{channel}.json"
        self.failure: OSError | None = None
        self._channel = channel
        self._changed = asyncio.Event()
        self._writing = threading.Lock()
        self._shown = metrics.SOURCE_HEIGHT.labels(channel=channel)
        self.position = self._read()
        try:
            self.configurations = Configurations(
                folder / CONFIGURATIONS / channel, self.position.number if self.position else None
            )
        except ConfigurationsError as error:
            raise CheckpointError(str(error)) from error
        self._shown.set(self.height)

    @property
    def height(self) -> int:
        """How many blocks were told."""
        return self.position.number + 1 if self.position else 0

    def advance(self, position: Position) -> None:
        """Move on; the file follows at its pace."""
        self.position = position
        self._shown.set(position.number + 1)
        self._changed.set()

    async def run(self) -> None:
        """Keep the file at the position, for as long as it runs."""
        while True:
            await self._changed.wait()
            await self.write()
            await asyncio.sleep(RETRY_SECONDS if self.failure else PACE_SECONDS)

    async def write(self) -> None:
        """Bring the file to the position. A failure is logged and kept in ``failure``."""
        self._changed.clear()
        try:
            await asyncio.to_thread(self._write)
        except OSError as error:
            if self.failure is None:
                log.error(
                    "the position cannot be written; a restart would repeat events",
                    file=str(self.file),
                    reason=str(error),
                )
            self.failure = error
            self._changed.set()
        else:
            self.failure = None

    def check_health(self) -> None:
        """Raises CheckpointError while the file cannot be written."""
        if self.failure:
            raise CheckpointError(
                f"the position cannot be written to {self.file} ({self.failure}); "
                "make room on the volume, or make it writable"
            )

    def _read(self) -> Position | None:
        try:
            content = json.loads(self.file.read_bytes())
            position = Position(int(content["number"]), bytes.fromhex(content["hash"]))
            channel = content["channel"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(
                f"the position file {self.file} cannot be read: {error}; make it readable"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"the position file {self.file} is damaged ({error}); restore it, or delete it to "
                "begin as at the first start"
            ) from error
        if channel != self._channel:
            raise CheckpointError(
                f"the position file {self.file} is of channel {channel!r} and not of "
                f"{self._channel!r}; put the right one there, or delete it"
            )
        return position

    def _write(self) -> None:
        # In a thread, which a cancelled write() leaves behind. One at a time, and each with the
        # position of its own turn, so that a slow one cannot put an older position back.
        with self._writing:
            position = self.position
            if position is None:
                return
            self.configurations.write()
            self.file.parent.mkdir(parents=True, exist_ok=True)
            content = {
                "channel": self._channel,
                "number": position.number,
                "hash": position.hash.hex(),
            }
            write_atomically(self.file, json.dumps(content).encode(), 0o600)
