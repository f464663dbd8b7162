"""Who is on which handler list."""

import pytest
from eventhouse import interest as wish

from event_hub.events import BLOCK, CHAINCODE, FILTEREDBLOCK, HubEvent, Topic
from event_hub.interests import (
    AlreadyRegistered,
    Interests,
    NameTooLong,
    NotRegistered,
    TooManyInterests,
    topic_of,
)


def interest(kind: int, chaincode: str | None = None, name: str = "", on: str = "") -> Topic:
    return topic_of(wish(kind, chaincode, name, on))


def chaincode_event(name: str, chaincode: str = "cc", channel: str = "mychannel") -> HubEvent:
    return HubEvent(CHAINCODE, channel, b"", chaincode, name)


def test_chaincode_events_go_to_name_and_wildcard_and_to_nobody_else() -> None:
    interests: Interests[str] = Interests(10)
    interests.register("named", interest(CHAINCODE, "cc", "a"))
    interests.register("wildcard", interest(CHAINCODE, "cc"))
    interests.register("both", interest(CHAINCODE, "cc", "a"))
    interests.register("both", interest(CHAINCODE, "cc"))
    interests.register("other", interest(CHAINCODE, "cc2"))
    interests.register("blocks", interest(BLOCK))
    assert sorted(interests.consumers(chaincode_event("a"))) == ["both", "named", "wildcard"]
    assert sorted(interests.consumers(chaincode_event("b"))) == ["both", "wildcard"]
    assert sorted(interests.consumers(chaincode_event(""))) == ["both", "wildcard"]
    assert list(interests.consumers(chaincode_event("a", "cc2"))) == ["other"]
    assert list(interests.consumers(chaincode_event("a", "cc3"))) == []


def test_channel_of_an_interest_is_respected() -> None:
    interests: Interests[str] = Interests(10)
    interests.register("every", interest(BLOCK))
    interests.register("mine", interest(BLOCK, on="mychannel"))
    interests.register("other", interest(BLOCK, on="other"))
    interests.register("both", interest(BLOCK))
    interests.register("both", interest(BLOCK, on="mychannel"))
    block = HubEvent(BLOCK, "mychannel", b"")
    assert sorted(interests.consumers(block)) == ["both", "every", "mine"]


def test_only_what_somebody_wants_is_wanted() -> None:
    interests: Interests[str] = Interests(10)
    assert not interests.wanted(BLOCK, "mychannel")
    interests.register("a", interest(BLOCK, on="mychannel"))
    interests.register("b", interest(CHAINCODE, "cc"))
    assert interests.wanted(BLOCK, "mychannel")
    assert not interests.wanted(BLOCK, "other")
    assert interests.wanted(CHAINCODE, "other")
    assert not interests.wanted(FILTEREDBLOCK, "mychannel")
    interests.unregister("a", interest(BLOCK, on="mychannel"))
    interests.remove("b")
    assert not interests.wanted(BLOCK, "mychannel")
    assert not interests.wanted(CHAINCODE, "mychannel")


def test_twice_and_never_are_errors_of_their_own() -> None:
    interests: Interests[str] = Interests(10)
    interests.register("a", interest(CHAINCODE, "cc", "x"))
    with pytest.raises(AlreadyRegistered, match="CHAINCODE cc/x on every channel"):
        interests.register("a", interest(CHAINCODE, "cc", "x"))
    with pytest.raises(NotRegistered, match=r"CHAINCODE cc/\* on every channel"):
        interests.unregister("a", interest(CHAINCODE, "cc"))
    with pytest.raises(NotRegistered):
        interests.unregister("stranger", interest(BLOCK))


def test_bound_is_on_what_one_consumer_holds() -> None:
    interests: Interests[str] = Interests(1)
    interests.register("a", interest(BLOCK))
    interests.register("b", interest(BLOCK))
    with pytest.raises(TooManyInterests):
        interests.register("a", interest(FILTEREDBLOCK))
    interests.unregister("a", interest(BLOCK))
    interests.register("a", interest(FILTEREDBLOCK))


def test_removed_consumer_is_on_no_list() -> None:
    interests: Interests[str] = Interests(10)
    interests.register("a", interest(BLOCK))
    interests.register("a", interest(CHAINCODE, "cc"))
    interests.remove("a")
    interests.remove("a")
    assert list(interests.consumers(HubEvent(BLOCK, "mychannel", b""))) == []
    assert list(interests.consumers(chaincode_event("x"))) == []


def test_interest_that_is_too_large_is_not_kept() -> None:
    interests: Interests[str] = Interests(10)
    interests.register("a", interest(CHAINCODE, "c" * 500, "e" * 500))
    for made in (wish(BLOCK, on="x" * 1025), wish(CHAINCODE, "c" * 600, "e" * 600)):
        with pytest.raises(NameTooLong, match="1024 bytes together"):
            topic_of(made)
