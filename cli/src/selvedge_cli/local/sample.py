"""Where the sample chaincode is."""

from __future__ import annotations

from pathlib import Path

from selvedge_cli.errors import CommandError
from selvedge_cli.local.services import CHAINCODE


def find_sample() -> Path:
    """The sample chaincode of the working folder, or of the source tree around this package.

    Raises:
        CommandError: there is none.
    """
    for place in [Path.cwd(), *Path(__file__).resolve().parents]:
        sample = place / "samples" / CHAINCODE / "asset_transfer.py"
        if sample.exists():
            return sample
    raise CommandError(
        f"samples/{CHAINCODE}/asset_transfer.py is not here: run --demo in the project's folder"
    )
