"""A position in a file."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from selvedge_client import Checkpoint, CheckpointError, Position

POSITIONS = [
    Position(0, 0),
    Position(0, 1, b"hash"),
    Position(0),
    Position(1, 5),
    Position(2, None, b"hash"),
]


@pytest.mark.parametrize("position", POSITIONS, ids=str)
async def test_position_is_read_as_it_was_stored(position: Position, tmp_path: Path) -> None:
    await Checkpoint(tmp_path / "of" / "mine").advance(position)
    assert Checkpoint(tmp_path / "of" / "mine").position == position


def test_positions_come_one_after_the_other() -> None:
    places = [position.next for position in POSITIONS]
    assert places == sorted(places) == [(0, 1), (0, 2), (1, 0), (1, 6), (3, 0)]


async def test_it_moves_forward_unless_it_is_placed(tmp_path: Path) -> None:
    file = tmp_path / "mine"
    checkpoint = Checkpoint(file)
    assert checkpoint.position is None
    await asyncio.gather(*(checkpoint.advance(position) for position in reversed(POSITIONS)))
    assert checkpoint.position == Checkpoint(file).position == POSITIONS[-1]
    await checkpoint.place(POSITIONS[1])
    assert checkpoint.position == Checkpoint(file).position == POSITIONS[1]
    assert os.listdir(tmp_path) == ["mine"]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"block": "x"}',
        b'{"block": -1}',
        b'{"block": 1, "transaction": -1}',
        b'{"block": 1, "block_hash": "xyz"}',
        json.dumps({"block": 4, "records": 2}).encode(),
    ],
)
def test_file_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"mine cannot be read .*: restore it, or delete it"):
        Checkpoint(file)


async def test_file_that_cannot_be_written_is_named_and_nothing_moves(tmp_path: Path) -> None:
    folder = tmp_path / "of"
    checkpoint = Checkpoint(folder / "mine")
    await checkpoint.advance(POSITIONS[0])
    (folder / "mine").unlink()
    folder.rmdir()
    folder.touch()
    with pytest.raises(CheckpointError, match=r"mine cannot be written .*make room, or choose"):
        await checkpoint.advance(POSITIONS[1])
    assert checkpoint.position == POSITIONS[0]
