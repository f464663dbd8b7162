"""Pages of a range: rows, bookmarks, what is recorded, and that they go with no writes."""

from collections.abc import Callable
from typing import Any

import pytest
from testchannel import CHAINCODE, results_of, writes

from chaincode_support.ledger import Ledger, LedgerClosed, PagesAreReadOnly, Simulator
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2 as kv

KEYS = [f"k{n}" for n in range(7)]


@pytest.fixture
async def filled(chain: Any) -> Ledger:
    """A ledger with KEYS, all written by transaction 0 of block 1."""
    await chain.add(chain.network.transaction(writes(**dict.fromkeys(KEYS, b"x")))[1])
    ledger: Ledger = chain.ledger
    return ledger


def info(start: str, end: str, keys: list[str], *, exhausted: bool) -> kv.RangeQueryInfo:
    """What a page that gave these keys is to leave in the read-write set."""
    recorded = kv.RangeQueryInfo(start_key=start, end_key=end, itr_exhausted=exhausted)
    if keys:
        version = kv.Version(block_num=1)
        reads = [kv.KVRead(key=key, version=version) for key in keys]
        recorded.raw_reads.kv_reads.extend(reads)
    return recorded


def page_results(ledger: Ledger, *pages: tuple[str, str, int, str]) -> bytes:
    """The results of a simulation that reads these pages, and asks for their bookmarks."""
    simulator = ledger.simulator("tx")
    for page in pages:
        rows = simulator.range_page(CHAINCODE, *page)
        list(rows), rows.bookmark
        rows.close()
    results = simulator.results()
    simulator.close()
    return results


def expected(*infos: kv.RangeQueryInfo) -> bytes:
    return results_of({CHAINCODE: kv.KVRWSet(range_queries_info=infos)})


@pytest.mark.parametrize("end", ["", "k5", "z"])
@pytest.mark.parametrize("start", ["", "k1", "k1x"])
@pytest.mark.parametrize("size", range(1, 9))
async def test_page_after_page_is_the_range(
    filled: Ledger, size: int, start: str, end: str
) -> None:
    simulator = filled.simulator("tx")
    page = simulator.range_page(CHAINCODE, start, end, size, "")
    rows = list(page)
    while page.bookmark:
        assert len(rows) % size == 0
        page = simulator.range_page(CHAINCODE, start, end, size, page.bookmark)
        rows += page
    assert rows == list(simulator.range(CHAINCODE, start, end))
    assert rows
    simulator.close()


async def test_a_full_page_ends_with_its_last_key_whether_more_follow_or_not(
    filled: Ledger,
) -> None:
    assert page_results(filled, ("k1", "k5", 2, "")) == expected(
        info("k1", "k2", KEYS[1:3], exhausted=False)
    )
    assert page_results(filled, ("k5", "", 2, "")) == expected(
        info("k5", "k6", KEYS[5:], exhausted=False)
    )


async def test_a_page_cut_short_by_the_end_was_read_to_its_end(filled: Ledger) -> None:
    assert page_results(filled, ("k1", "k4", 10, "")) == expected(
        info("k1", "k4", KEYS[1:4], exhausted=True)
    )
    assert page_results(filled, ("x", "z", 10, "")) == expected(info("x", "z", [], exhausted=True))


async def test_a_bookmark_is_recorded_as_the_start(filled: Ledger) -> None:
    assert page_results(filled, ("k1", "k6", 2, "k3")) == expected(
        info("k3", "k4", KEYS[3:5], exhausted=False)
    )


async def test_the_same_page_twice_is_recorded_once(filled: Ledger) -> None:
    page = ("k0", "", 3, "")
    assert page_results(filled, page, page) == page_results(filled, page)


@pytest.mark.parametrize("size", [0, -1])
async def test_a_page_of_no_size_has_no_bound(filled: Ledger, size: int) -> None:
    assert page_results(filled, ("", "", size, "k1")) == expected(
        info("k1", "", KEYS[1:], exhausted=True)
    )


async def test_asking_for_the_bookmark_ends_the_page_and_records_nothing(filled: Ledger) -> None:
    simulator = filled.simulator("tx")
    page = simulator.range_page(CHAINCODE, "", "", 5, "")
    assert next(page) == ("k0", b"x")
    assert page.bookmark == page.bookmark == "k1"
    assert list(page) == []
    page.close()
    assert page.bookmark == "k1"
    assert simulator.results() == expected(info("", "k0", KEYS[:1], exhausted=False))
    simulator.close()


async def test_a_closed_page_has_no_bookmark(filled: Ledger) -> None:
    simulator = filled.simulator("tx")
    page = simulator.range_page(CHAINCODE, "", "", 5, "")
    simulator.close()
    with pytest.raises(LedgerClosed, match="range has been closed"):
        page.bookmark  # noqa: B018 - reading it is the point


async def test_a_page_conflicts_with_what_changes_within_it_and_not_behind(chain: Any) -> None:
    await chain.add(chain.network.transaction(writes(a=b"1", b=b"2", c=b"3"))[1])

    def read_page(simulator: Simulator) -> None:
        assert [key for key, _ in simulator.range_page(CHAINCODE, "", "", 2, "")] == ["a", "b"]

    behind, within = (chain.simulate(read_page) for _ in range(2))
    await chain.add(chain.network.transaction(writes(bb=b"new", c=b""))[1])
    assert await chain.add(behind) == ["VALID"]
    await chain.add(chain.network.transaction(writes(aa=b"new"))[1])
    assert await chain.add(within) == ["PHANTOM_READ_CONFLICT"]


WRITES: list[Callable[[Simulator], None]] = [
    lambda simulator: simulator.put_state(CHAINCODE, "k", b"x"),
    lambda simulator: simulator.delete_state("other", "k"),
    lambda simulator: simulator.put_metadata(CHAINCODE, "k", {"name": b"x"}),
    lambda simulator: simulator.put_metadata(CHAINCODE, "k", {}),
]


@pytest.mark.parametrize("write", WRITES)
def test_what_has_written_reads_no_page(ledger: Ledger, write: Callable[[Simulator], None]) -> None:
    simulator = ledger.simulator("tx")
    simulator.get_metadata(CHAINCODE, "k")
    write(simulator)
    with pytest.raises(PagesAreReadOnly, match="tx has written, so it cannot read pages"):
        simulator.range_page(CHAINCODE, "", "", 5, "")
    write(simulator)
    assert b"k" in simulator.results()
    simulator.close()


@pytest.mark.parametrize("write", WRITES)
def test_what_has_read_a_page_writes_nothing(
    ledger: Ledger, write: Callable[[Simulator], None]
) -> None:
    simulator = ledger.simulator("tx")
    list(simulator.range_page(CHAINCODE, "a", "b", 5, ""))
    with pytest.raises(PagesAreReadOnly, match="tx has read a page of a range, so it cannot write"):
        write(simulator)
    list(simulator.range_page(CHAINCODE, "b", "c", 5, ""))
    assert simulator.results() == expected(
        info("a", "b", [], exhausted=True), info("b", "c", [], exhausted=True)
    )
    simulator.close()
