"""A source whose blocks are in a file that grows: `python -m bench.drill.source FILE ADDRESS`.

It serves them over Deliver, in plaintext, until it is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import uvloop

from bench.event_source import Blocks, block_server
from selvedge_common import logs

_LENGTH = struct.Struct(">I")
_LOOK = 0.004
"""Seconds between two looks at the file."""


class BlockFile:
    """Blocks, each behind its length.

    Args:
        file: whoever writes makes it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read = 0

    def append(self, blocks: Iterable[bytes]) -> None:
        """Write some."""
        with self.file.open("ab") as file:
            file.write(b"".join(_LENGTH.pack(len(block)) + block for block in blocks))

    def more(self) -> Iterator[bytes]:
        """Those that were written since this was asked last."""
        with self.file.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        place = 0
        while place + _LENGTH.size <= len(content):
            (length,) = _LENGTH.unpack_from(content, place)
            end = place + _LENGTH.size + length
            if end > len(content):
                break  # it is just being written
            yield content[place + _LENGTH.size : end]
            place = end
        self._read += place


async def serve(file: BlockFile, address: str) -> None:
    """Serve what is in the file, and what comes."""
    blocks = Blocks()
    blocks.append(file.more())
    server = block_server(blocks, address)
    await server.start()
    while True:
        await asyncio.sleep(_LOOK)
        if more := [*file.more()]:
            blocks.append(more)


def main() -> None:
    """Serve, on the event loop that the services use."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="of the blocks")
    parser.add_argument("address", help="host:port")
    arguments = parser.parse_args()
    logs.configure("error", "console")
    uvloop.run(serve(BlockFile(arguments.file), arguments.address))


if __name__ == "__main__":
    main()
