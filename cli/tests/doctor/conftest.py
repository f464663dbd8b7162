"""What an examination is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cli.tests.homes import Home

from selvedge_cli.addresses import Addresses
from selvedge_cli.doctor.installation import Installation

Examined = Callable[..., Installation]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with the two usual users."""
    home = Home(tmp_path / "home")
    home.add_user("user1")
    home.add_user("admin", unit="admin")
    return home


@pytest.fixture
def examined(home: Home) -> Examined:
    """Makes the installation of that home, with these variables, addresses and so on."""

    def examined(
        environ: dict[str, str] | None = None, *, user: str = "user1", **fields: Any
    ) -> Installation:
        addresses = fields.pop("addresses", Addresses())
        installation = Installation(
            home.settings(addresses, user), environ or {}, datetime.now(UTC)
        )
        return replace(installation, **fields)

    return examined
