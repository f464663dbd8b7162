"""kill -9 in the middle of it: whatever was acknowledged is there, whole, once, and in order."""

import random
from pathlib import Path

import pytest
from crashes import Nursery, Rounds

ROUNDS = 30


@pytest.mark.timeout(120)
def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    with Nursery() as nursery:
        rounds = Rounds(nursery, tmp_path, random.Random())
        for _ in range(ROUNDS):
            rounds.run()
        rounds.finish()
    assert rounds.ordered
