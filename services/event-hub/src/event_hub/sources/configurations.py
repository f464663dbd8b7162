"""The configuration blocks of one channel that were passed, each kept for as long as the position.

So trust outlives a restart, and a block of the past is judged by the configuration of its time.
"""

import bisect
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from selvedge_common.files import write_atomically
from selvedge_common.protoutil import blocks
from selvedge_common.protoutil.block_validation import BlockValidation
from selvedge_common.protoutil.config_block import ChannelConfig, open_config
from selvedge_common.protoutil.errors import MalformedBlock
from selvedge_protos.common import common_pb2

# Opened ones take memory; whoever reads the past goes through one after the other.
_OPENED = 8

_SUFFIX = ".block"


class ConfigurationsError(Exception):
    """A file of a configuration cannot be used; the hub must not trust without it."""


@dataclass(frozen=True)
class Configuration:
    """What a configuration block says.

    Args:
        number: the block's number; the blocks after it are judged by this configuration.
        hash: the hash of its header.
        config: what it says.
        validation: who may sign the blocks after it.
    """

    number: int
    hash: bytes
    config: ChannelConfig
    validation: BlockValidation

    @classmethod
    def of(cls, block: common_pb2.Block) -> "Configuration":
        """Open a configuration block. Raises MalformedBlock."""
        config = open_config(block)
        digest = blocks.header_hash(block.header)
        return cls(block.header.number, digest, config, BlockValidation(config))


class Configurations:
    """The configurations of a channel from the first contact on, on disk.

    Args:
        folder: where the files are; it is made when there is something to write.
        position: the number of the block that was told last. Configurations after it were written
            by a run that got no further: they come again. Where nothing was told, all are of
            another time.

    Raises:
        ConfigurationsError: the newest cannot be read.
    """

    def __init__(self, folder: Path, position: int | None) -> None:
        self._folder = folder
        self._unwritten: dict[int, bytes] = {}
        self._opened: OrderedDict[int, Configuration] = OrderedDict()
        last = -1 if position is None else position
        found = sorted(
            int(file.stem) for file in folder.glob(f"*{_SUFFIX}") if file.stem.isdecimal()
        )
        self._numbers = [number for number in found if number <= last]
        for number in found[len(self._numbers) :]:
            self._file(number).unlink(missing_ok=True)
        if self._numbers:
            self.before(last + 1)

    @property
    def newest(self) -> Configuration | None:
        """The configuration in force after the block that was read last."""
        return self._open(self._numbers[-1]) if self._numbers else None

    def before(self, number: int) -> Configuration | None:
        """The configuration that a block is judged by; None for one from before the first contact.

        Raises:
            ConfigurationsError: its file cannot be read any more.
        """
        index = bisect.bisect_left(self._numbers, number)
        return self._open(self._numbers[index - 1]) if index else None

    def at(self, number: int) -> Configuration | None:
        """The configuration in the block of that number, if it is one that was passed."""
        index = bisect.bisect_left(self._numbers, number)
        known = index < len(self._numbers) and self._numbers[index] == number
        return self._open(number) if known else None

    def add(self, configuration: Configuration, block: common_pb2.Block) -> None:
        """Take the next configuration, with the block that it was opened from."""
        if self._numbers and configuration.number <= self._numbers[-1]:
            return
        self._numbers.append(configuration.number)
        self._unwritten[configuration.number] = block.SerializeToString()
        self._remember(configuration)

    def write(self) -> None:
        """Bring all to the disk, before any position after them. Raises OSError."""
        for number, block in tuple(self._unwritten.items()):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file(number), block, 0o600)
            del self._unwritten[number]

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}{_SUFFIX}"

    def _open(self, number: int) -> Configuration:
        opened = self._opened.get(number)
        if opened is None:
            opened = self._read(number)
            self._remember(opened)
        self._opened.move_to_end(number)
        return opened

    def _read(self, number: int) -> Configuration:
        file = self._file(number)
        try:
            data = self._unwritten.get(number) or file.read_bytes()
            opened = Configuration.of(blocks.parse_block(data))
        except OSError as error:
            raise ConfigurationsError(
                f"the configuration {file} cannot be read: {error}; make it readable"
            ) from error
        except MalformedBlock as error:
            raise ConfigurationsError(f"{file} is damaged ({error}); {self._remedy}") from error
        if opened.number != number:
            raise ConfigurationsError(f"{file} holds block {opened.number}; {self._remedy}")
        return opened

    def _remember(self, opened: Configuration) -> None:
        self._opened[opened.number] = opened
        while len(self._opened) > _OPENED:
            self._opened.popitem(last=False)

    @property
    def _remedy(self) -> str:
        return (
            "restore it, or stop the hub and delete this folder, to trust the source's "
            "configuration anew"
        )
