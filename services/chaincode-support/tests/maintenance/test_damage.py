"""Damage of every place in the files is found, and mended from the other file."""

import random
import sqlite3
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from testchannel import CHANNEL
from volumes import (
    PAGE,
    contents,
    copy_of,
    damage_page,
    fingerprints,
    pages,
    quiet,
)

from chaincode_support.maintenance.errors import BlockLost, MaintenanceError
from chaincode_support.maintenance.rebuilding import rebuild
from chaincode_support.maintenance.verification import verify
from chaincode_support.volume import ChannelFiles

FLIPS = 400


@pytest.mark.parametrize("part", ["ledger", "ordering"])
def test_a_page_of_garbage_is_found_and_mended_wherever_it_is(
    sound: Path, tmp_path: Path, part: str
) -> None:
    original = ChannelFiles.on(sound, CHANNEL)
    before = [contents(original.ledger), contents(original.ordering)]
    state = fingerprints(original.ledger)
    garbage = random.Random(part)
    for number in pages(getattr(original, part)):
        files = copy_of(sound, tmp_path / f"{part}{number}")
        damaged: Path = getattr(files, part)
        damage_page(damaged, number, garbage.randbytes(PAGE))
        report = verify(files, quiet)
        assert {finding.file for finding in report.findings} == {str(damaged)}, number
        # Of a log without a readable first page nobody knows how far it went.
        with suppress(BlockLost) if part == "ordering" else nullcontext():
            rebuild(files, quiet, force=False)
        rebuild(files, quiet, force=part == "ordering")
        assert verify(files, quiet).findings == [], number
        assert [contents(files.ledger), contents(files.ordering)] == before
        assert fingerprints(files.ledger) == state


@pytest.mark.parametrize("part", ["ledger", "ordering"])
def test_a_flipped_bit_is_found_unless_it_means_nothing(
    sound: Path, tmp_path: Path, part: str
) -> None:
    files = copy_of(sound, tmp_path / "volume")
    damaged: Path = getattr(files, part)
    whole, before = damaged.read_bytes(), contents(damaged)
    chosen = random.Random()
    found = 0
    for _ in range(FLIPS):
        place, bit = chosen.randrange(len(whole)), 1 << chosen.randrange(8)
        flipped = bytearray(whole)
        flipped[place] ^= bit
        damaged.write_bytes(flipped)
        if is_sound(files):
            # In room that is not used, or in the layout of a schema's text.
            assert read(damaged) == before, f"bit {bit} at {place} of {part}"
        else:
            found += 1
    assert found > FLIPS // 4


def is_sound(files: ChannelFiles) -> bool:
    try:
        return verify(files, quiet).sound
    except MaintenanceError as error:
        # A file that says that it is of a later release is not read at all.
        return "has schema" not in str(error)


def read(file: Path) -> dict[str, list[tuple[object, ...]]] | str:
    try:
        return contents(file)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return str(error)
