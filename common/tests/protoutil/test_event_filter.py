"""Which transactions a filter lets through."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selvedge_common.protoutil.event_filter import (
    ANY,
    INVALID,
    MAX_STARS,
    MAX_VALUE_BYTES,
    EventFilter,
    Kind,
    TooLarge,
    TooManyValues,
    UnfitFilter,
)
from selvedge_protos.peer import transaction_pb2
from selvedge_protos.selvedge.eventhub.v1 import event_hub_pb2

VALID_CODE = transaction_pb2.VALID
CREATED = Kind("asset", "AssetCreated", "Org1MSP", VALID_CODE)
SILENT = CREATED._replace(event=None)
CONFLICT = CREATED._replace(code=transaction_pb2.MVCC_READ_CONFLICT)
SILENT_CONFLICT = SILENT._replace(code=transaction_pb2.MVCC_READ_CONFLICT)


def names(*globs: str) -> EventFilter:
    return EventFilter(event_names=frozenset(globs))


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (EventFilter(), [CREATED]),
        (EventFilter(transactions=True), [CREATED, SILENT]),
        (EventFilter(validity=INVALID), [CONFLICT, SILENT_CONFLICT]),
        (EventFilter(validity=ANY), [CREATED, CONFLICT, SILENT_CONFLICT]),
        (
            EventFilter(validity=ANY, transactions=True),
            [CREATED, SILENT, CONFLICT, SILENT_CONFLICT],
        ),
        (EventFilter(chaincodes=frozenset({"other", "asset"})), [CREATED]),
        (EventFilter(chaincodes=frozenset({"other"})), []),
        (EventFilter(creators=frozenset({"Org2MSP"})), []),
        (EventFilter(event_names=frozenset({"Asset*"}), transactions=True), [CREATED]),
        (EventFilter(event_names=frozenset({"Asset*"}), validity=ANY), [CREATED, CONFLICT]),
    ],
    ids=str,
)
def test_what_is_told(wanted: EventFilter, told: list[Kind]) -> None:
    everything = [CREATED, SILENT, CONFLICT, SILENT_CONFLICT]
    assert [kind for kind in everything if wanted.matches(kind)] == told


@pytest.mark.parametrize(
    ("glob", "name", "fits"),
    [
        ("AssetCreated", "AssetCreated", True),
        ("Asset*", "AssetCreated", True),
        ("*Created", "AssetCreated", True),
        ("*set*ea*", "AssetCreated", True),
        ("A*t*d", "AssetCreated", True),
        ("*", "", True),
        ("Asset", "AssetCreated", False),
        ("asset*", "AssetCreated", False),
        ("Asset*Created*d", "AssetCreated", False),
        # What a star leaves over is not counted twice.
        ("Cre*reated", "Created", False),
        # Only the star is special.
        ("Asset?reated", "AssetCreated", False),
        ("[A]*", "AssetCreated", False),
    ],
)
def test_star_stands_for_anything(glob: str, name: str, fits: bool) -> None:
    assert names(glob).matches(CREATED._replace(event=name)) is fits


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_globs_are_what_regular_expressions_say(glob: str, name: str) -> None:
    expression = ".*".join(map(re.escape, glob.split("*")))
    if glob:
        assert names(glob).matches(CREATED._replace(event=name)) == bool(
            re.fullmatch(expression, name)
        )


def test_glob_of_many_stars_does_not_go_back_over_a_long_name() -> None:
    # A matcher that does would outlive the test's timeout, and the universe.
    hostile = CREATED._replace(event=200_000 * "a")
    assert not names("*a" * 500 + "*b").matches(hostile)
    assert not names("*" + 500 * "a" + "b*").matches(hostile)


def test_filter_survives_its_travel() -> None:
    wanted = EventFilter(
        frozenset({"a", "b"}), frozenset({"X*"}), frozenset({"Org1MSP"}), ANY, transactions=True
    )
    assert EventFilter.read(wanted.message(), 4) == wanted
    assert len({wanted, EventFilter.read(wanted.message(), 4)}) == 1


def test_bounds_are_named() -> None:
    message = event_hub_pb2.Filter(chaincodes=["a", "b"], event_names=["c"])
    assert EventFilter.read(message, 3)
    with pytest.raises(TooManyValues, match="has 3 values, more than 2"):
        EventFilter.read(message, 2)


def test_values_are_bounded_together() -> None:
    message = event_hub_pb2.Filter(chaincodes=["ab"], event_names=["ü"], creator_msp_ids=["c"])
    assert EventFilter.read(message, 3, 5)
    with pytest.raises(TooLarge, match="have 5 bytes, more than 4"):
        EventFilter.read(message, 3, 4)
    with pytest.raises(TooLarge, match="have 20480 bytes, more than 16384"):
        EventFilter.read(event_hub_pb2.Filter(event_names=20 * [1024 * "x"]), 20)


def test_stars_that_follow_one_another_are_one() -> None:
    message = event_hub_pb2.Filter(event_names=[1000 * "*" + "Created", "A*****", "***"])
    assert EventFilter.read(message, 3) == names("*Created", "A*", "*")


def test_glob_has_few_stars() -> None:
    most = "a*" * MAX_STARS
    assert EventFilter.read(event_hub_pb2.Filter(event_names=[most]), 1) == names(most)
    with pytest.raises(UnfitFilter, match="of more than 8 stars"):
        EventFilter.read(event_hub_pb2.Filter(event_names=[most + "b*"]), 1)


def test_stars_take_effort_each() -> None:
    assert names("a", "b", "c").effort == 1
    assert names("a", "b*", "*c*").effort == 4


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (event_hub_pb2.Filter(chaincodes=[""]), "has an empty value"),
        (
            event_hub_pb2.Filter(event_names=[(MAX_VALUE_BYTES + 1) * "x"]),
            "of more than 1024 bytes",
        ),
        (event_hub_pb2.Filter(creator_msp_ids=[MAX_VALUE_BYTES * "ü"]), "of more than 1024 bytes"),
        (
            event_hub_pb2.Filter(validity=event_hub_pb2.Filter.Validity.ValueType(7)),
            "has the validity 7: give VALID, INVALID or ANY",
        ),
    ],
)
def test_filter_without_sense_is_refused(message: event_hub_pb2.Filter, sentence: str) -> None:
    with pytest.raises(UnfitFilter, match=sentence):
        EventFilter.read(message, 10)


def test_filter_is_told_in_words() -> None:
    assert str(EventFilter()) == "valid events"
    assert str(EventFilter(frozenset("ba"), frozenset({"X*"}), frozenset({"Org1MSP"}), ANY)) == (
        "all events of 'a' or 'b' named 'X*' by 'Org1MSP'"
    )
    assert str(EventFilter(validity=INVALID)) == "rejected transactions"
