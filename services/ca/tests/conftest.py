"""What the tests of the ca share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from services.ca.tests.running import RunningCa, running_ca


@pytest.fixture
async def ca(tmp_path: Path) -> AsyncIterator[RunningCa]:
    """A serving ca on a fresh volume."""
    async with running_ca(tmp_path) as running:
        yield running
