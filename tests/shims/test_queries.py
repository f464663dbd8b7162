"""Ranges, composite keys, pages of both, and what became of a key."""

import time
from typing import Any

import pytest
from tests.shims.chaincodes import every_chaincode, having
from tests.shims.contract import Contract

pytestmark = pytest.mark.timeout(300)  # the first test starts everything


def series(prefix: str, count: int) -> list[dict[str, str]]:
    """What PutSeries has written."""
    return [{"key": f"{prefix}-{number:03}", "value": str(number)} for number in range(count)]


@every_chaincode
@pytest.mark.parametrize("count", [100, 205])
def test_a_range_comes_whole_and_in_order(contract: Contract, unique: str, count: int) -> None:
    contract.submit("PutSeries", unique, str(count))
    assert contract.json("List", unique, f"{unique}~") == series(unique, count)


@every_chaincode
def test_a_range_holds_its_start_and_not_its_end(contract: Contract, unique: str) -> None:
    contract.submit("PutSeries", unique, "5")
    rows = contract.json("List", f"{unique}-001", f"{unique}-003")
    assert rows == series(unique, 5)[1:3]
    assert contract.json("List", f"{unique}-9", f"{unique}-99") == []


@every_chaincode
def test_an_open_range_leaves_composite_keys_out(contract: Contract, unique: str) -> None:
    contract.submit("Put", unique, "simple")
    contract.submit("PutComposite", unique, "red", "car", "composite")
    keys = [row["key"] for row in contract.json("List", "", "")]
    assert keys == sorted(keys)
    assert [key for key in keys if unique in key] == [unique]


@every_chaincode
def test_a_range_is_left_before_its_end(contract: Contract, unique: str) -> None:
    contract.submit("PutSeries", unique, "205")
    assert contract.text("First", unique, f"{unique}~") == f"{unique}-000"


@having("ListPage")
@pytest.mark.parametrize(("count", "pages"), [(7, [3, 3, 1]), (6, [3, 3]), (0, [0])])
def test_a_range_comes_page_by_page(
    contract: Contract, unique: str, count: int, pages: list[int]
) -> None:
    contract.submit("PutSeries", unique, str(count))
    found = read_pages(contract, "ListPage", unique, f"{unique}~", size=3)
    assert [page["fetched"] for page in found] == pages
    assert [row for page in found for row in page["rows"]] == series(unique, count)


@having("ListPage")
def test_a_page_is_larger_than_what_one_message_holds(contract: Contract, unique: str) -> None:
    contract.submit("PutSeries", unique, "205")
    first, rest = read_pages(contract, "ListPage", unique, f"{unique}~", size=150)
    assert (first["fetched"], rest["fetched"]) == (150, 55)
    assert first["rows"] + rest["rows"] == series(unique, 205)


def read_pages(contract: Contract, function: str, *args: str, size: int) -> list[dict[str, Any]]:
    """All pages of a query, each with the bookmark of the one before."""
    pages = [contract.json(function, *args, str(size), "")]
    while bookmark := pages[-1]["bookmark"]:
        pages.append(contract.json(function, *args, str(size), bookmark))
    return pages


@every_chaincode
def test_composite_keys_are_found_by_their_first_parts(contract: Contract, unique: str) -> None:
    parts = [[unique, "blue", "van"], [unique, "red", "car"], [unique, "red", "van"]]
    for each in parts:
        assert contract.json("PutComposite", *each, "-".join(each)) == each
        contract.submit("PutComposite", *each, "-".join(each))
    expected = [{"parts": each, "value": "-".join(each)} for each in parts[1:]]
    assert contract.json("ListComposite", unique, "red") == expected
    assert contract.json("ListComposite", unique, "re") == []


@having("ListCompositePage")
def test_composite_keys_come_page_by_page(contract: Contract, unique: str) -> None:
    for second in "abc":
        contract.submit("PutComposite", unique, "red", second, second)
    pages = read_pages(contract, "ListCompositePage", unique, "red", size=2)
    assert [page["fetched"] for page in pages] == [2, 1]
    assert [row for page in pages for row in page["rows"]] == [
        {"parts": [unique, "red", second], "value": second} for second in "abc"
    ]


@having("ListEveryComposite")
def test_all_composite_keys_come_page_by_page(contract: Contract, unique: str) -> None:
    for second in "abc":
        contract.submit("PutComposite", unique, "red", second, second)
    pages = read_pages(contract, "ListEveryComposite", size=2)
    found = [row["parts"] for page in pages for row in page["rows"]]
    assert [parts for parts in found if parts[0] == unique] == [
        [unique, "red", second] for second in "abc"
    ]


@having("History")
def test_a_key_has_a_history(contract: Contract, unique: str) -> None:
    started = int(time.time())
    assert contract.json("History", unique) == []
    calls = [("Put", "one"), ("Put", "two"), ("Delete", ""), ("Put", "three")]
    txids = [
        contract.submit(function, unique, *([value] if value else [])) for function, value in calls
    ]
    history = contract.json("History", unique)
    assert [(each["txid"], each["value"], each["deleted"]) for each in history] == [
        (txid, value, function == "Delete")
        for txid, (function, value) in reversed(list(zip(txids, calls, strict=True)))
    ]
    assert all(started <= each["seconds"] <= time.time() for each in history)


@having("History")
def test_a_history_is_longer_than_what_one_message_holds(contract: Contract, unique: str) -> None:
    proposed = [contract.endorsed("Put", unique, str(number)) for number in range(105)]
    contract.commit(*proposed)
    values = [each["value"] for each in contract.json("History", unique)]
    assert values == [str(number) for number in reversed(range(105))]
