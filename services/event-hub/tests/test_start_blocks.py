"""What a call's metadata says of where to begin."""

import grpc
import pytest

from event_hub.session import CloseReason, StreamEnded
from event_hub.start_blocks import KEY, start_blocks


def test_channels_may_come_by_comma_and_by_repetition() -> None:
    metadata = [
        (KEY, "mychannel=17, other=0"),
        ("user-agent", "mychannel=3"),
        (KEY, "third=18446744073709551615"),
    ]
    found = start_blocks(metadata)
    assert found == {"mychannel": 17, "other": 0, "third": 2**64 - 1}


def test_call_without_any_begins_nowhere() -> None:
    assert start_blocks([("user-agent", "grpc-go")]) == {}


def test_number_may_have_zeros_in_front() -> None:
    assert start_blocks([(KEY, "mychannel=" + "0" * 5000 + "17")]) == {"mychannel": 17}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "no channel and number"),
        ("mychannel", "no channel and number"),
        ("mychannel=", "no channel and number"),
        ("=17", "no channel and number"),
        ("mychannel=-1", "no channel and number"),
        ("mychannel=+1", "no channel and number"),
        ("mychannel=1_000", "no channel and number"),
        ("mychannel=0x11", "no channel and number"),
        ("mychannel=1.5", "no channel and number"),
        ("mychannel=\u0661", "no channel and number"),
        ("mychannel=17,", "no channel and number"),
        ("mychannel=17 other=3", "no channel and number"),
        ("mychannel=18446744073709551616", "the highest that there can be"),
        ("mychannel=" + "9" * 10_000, "the highest that there can be"),
        ("mychannel=17,mychannel=17", "twice"),
        (b"\xff\xfe=1=", "no channel and number"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_short_sentence(
    value: str | bytes, said: str
) -> None:
    with pytest.raises(StreamEnded) as refused:
        start_blocks([(KEY, value)])
    assert refused.value.reason is CloseReason.START_BLOCK_MALFORMED
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert said in refused.value.details
    assert KEY in refused.value.details
    assert len(refused.value.details) < 400


def test_channel_named_twice_in_two_values_is_refused() -> None:
    with pytest.raises(StreamEnded, match="name each channel once"):
        start_blocks([(KEY, "mychannel=17"), (KEY, "mychannel=18")])
