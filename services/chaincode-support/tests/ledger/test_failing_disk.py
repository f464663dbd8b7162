"""Disks that fail below SQLite: service goes on when they recover, and nothing is lost."""

import itertools
import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from crashes import Doomed, Nursery, Rounds
from failing_disks import Disk, Fault, build
from tests.e2e.tools import require

CUTS = 12
CRASHES = 6
ENOUGH = 10


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("disk"), str(require("cc")))


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    folder = tmp_path / "aside"
    folder.mkdir()
    return folder


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


def go_through(
    rounds: Rounds, doomed: Doomed, begin: Callable[[], None], end: Callable[[], None]
) -> None:
    """A fault of the whole disk: what fails meanwhile is told, and then all goes on."""
    for _ in range(3):
        doomed.read_more(ordered=ENOUGH, blocks=2)
        begin()
        doomed.read_more(failed=ENOUGH)
        end()
        doomed.read_more(ordered=ENOUGH, blocks=2)
    rounds.end(doomed)
    rounds.finish()


def test_files_that_may_not_grow_are_no_end(volume: Path) -> None:
    with Nursery() as nursery:
        rounds = Rounds(nursery, volume, random.Random())
        doomed = nursery.start(volume)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)

        def limit(size: int) -> None:
            resource.prlimit(doomed.pid, resource.RLIMIT_FSIZE, (size, most))

        go_through(rounds, doomed, lambda: limit(1), lambda: limit(most))


@pytest.mark.parametrize("fault", [Fault.WRITES_FAIL, Fault.FULL, Fault.SYNCS_FAIL])
def test_a_disk_that_fails_for_a_while_is_no_end(
    library: Path, volume: Path, aside: Path, fault: Fault
) -> None:
    disk = Disk(library, volume, aside)
    with Nursery(**disk.environment) as nursery:
        rounds = Rounds(nursery, volume, random.Random())
        doomed = nursery.start(volume)
        go_through(rounds, doomed, lambda: disk.fail(fault), lambda: disk.fail(Fault.NONE))


@pytest.mark.parametrize("fault", [Fault.WRITES_FAIL, Fault.FULL, Fault.SYNCS_FAIL])
def test_a_ledger_that_cannot_be_written_is_behind_until_it_can(
    library: Path, volume: Path, aside: Path, fault: Fault
) -> None:
    disk = Disk(library, volume / "ledger", aside)
    with Nursery(**disk.environment) as nursery:
        rounds = Rounds(nursery, volume, random.Random())
        doomed = nursery.start(volume)
        doomed.read_more(blocks=2)
        disk.fail(fault)
        # What was under way when it began may still be told.
        doomed.read_more(ordered=2 * ENOUGH)
        height = doomed.height
        doomed.read_more(ordered=2 * ENOUGH)
        assert doomed.height == height
        disk.fail(Fault.NONE)
        doomed.read_more(blocks=2 * ENOUGH)
        assert doomed.failed == []
        rounds.end(doomed)
        rounds.finish()


@pytest.mark.parametrize("power", ["stays", "is cut"])
def test_a_crash_after_a_failed_sync_loses_nothing_and_orders_nothing_twice(
    library: Path, volume: Path, aside: Path, power: str
) -> None:
    """A block whose sync failed was not acknowledged, yet it may be in the file; whoever opens that
    before it is written over takes it for ordered, and goes on from it."""
    chosen = random.Random()
    disk = Disk(library, volume / "ordering", aside, cuts=power == "is cut")
    after_kill = (lambda: disk.cut_power(chosen)) if power == "is cut" else (lambda: None)
    with Nursery(**disk.environment) as nursery:
        rounds = Rounds(nursery, volume, chosen, after_kill)
        for _ in range(CRASHES):
            doomed = nursery.start(volume)
            doomed.read_more(ordered=ENOUGH, blocks=1)
            disk.fail(Fault.SYNCS_FAIL)
            doomed.read_more(failed=chosen.randint(1, ENOUGH))
            rounds.end(doomed)
            disk.fail(Fault.NONE)
        rounds.finish()
    if power == "stays":
        assert rounds.ordered_after_all, "no crash came between a failure and the next attempt"


def test_what_a_failed_sync_left_behind_is_durable_before_anything_follows_it(
    library: Path, volume: Path, aside: Path
) -> None:
    """The system takes it for written, and gives it to whoever reads; yet a power cut takes it, and
    would take with it what was ordered after it."""
    disk = Disk(library, volume / "ordering", aside, cuts=True)
    cuts = itertools.cycle([False, True])

    def after_kill() -> None:
        if next(cuts):
            disk.cut_power(None)

    with Nursery(**disk.environment) as nursery:
        rounds = Rounds(nursery, volume, random.Random(), after_kill)
        for _ in range(CRASHES):
            doomed = nursery.start(volume)
            doomed.read_more(ordered=ENOUGH)
            disk.fail(Fault.SYNCS_FAIL)
            doomed.read_more(failed=1)
            rounds.end(doomed)
            disk.fail(Fault.NONE)
            doomed = nursery.start(volume)
            doomed.read_more(ordered=1)
            rounds.end(doomed)
    assert rounds.ordered_after_all


@pytest.mark.parametrize("some", [False, True], ids=["all is lost", "some is lost"])
def test_a_power_cut_loses_nothing_that_was_acknowledged(
    library: Path, volume: Path, aside: Path, some: bool
) -> None:
    """What was written and not synced is gone, or parts of it are, down to single sectors."""
    chosen = random.Random()
    disk = Disk(library, volume, aside, cuts=True)
    with Nursery(**disk.environment) as nursery:
        rounds = Rounds(nursery, volume, chosen, lambda: disk.cut_power(chosen if some else None))
        for _ in range(CUTS):
            rounds.run()
        rounds.finish()
    assert rounds.ordered


def test_a_disk_that_lies_does_lose_and_that_is_noticed(
    library: Path, volume: Path, aside: Path
) -> None:
    disk = Disk(library, volume, aside, cuts=True)
    with Nursery(**disk.environment) as nursery:
        rounds = Rounds(nursery, volume, random.Random(), lambda: disk.cut_power(None))
        doomed = nursery.start(volume)
        doomed.read_more(ordered=ENOUGH)
        disk.fail(Fault.LIES)
        doomed.read_more(ordered=ENOUGH)
        with pytest.raises(AssertionError, match="acknowledged and not ordered"):
            rounds.end(doomed)
