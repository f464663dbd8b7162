"""Room on the disk of the home: without it nothing is committed any more."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from selvedge_cli.doctor.findings import Finding, error, warning
from selvedge_cli.doctor.installation import Installation

LITTLE, TOO_LITTLE = 1 << 30, 1 << 27
"""Free bytes below which a warning is due, and an error: a block and the write-ahead logs of the
ledger take as much at once."""


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at what is free where the home is, or will be."""
    home = installation.home.absolute()
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < LITTLE:
        found = error if free < TOO_LITTLE else warning
        yield found(
            installation.home,
            f"{free >> 20} MB are left on its disk",
            "make room, or move the home: a peer whose disk is full commits nothing until there is",
        )
