"""Places for streams: so many in all, and a share of them for each client."""

from selvedge_common.comm import Places


def test_a_client_has_its_share_and_others_have_the_rest() -> None:
    places = Places(3, 2)
    places.take(b"ada")
    with places.held(b"ada"):
        assert places.full_for(b"ada") == "client"
        assert places.full_for(b"bob") is None
    assert places.full_for(b"ada") is None
    places.take(b"ada")
    with places.held(b"bob"):
        assert [places.full_for(who) for who in (b"ada", b"carol", b"")] == ["all"] * 3
    places.give_back(b"ada")
    places.give_back(b"ada")
    assert (places.taken, places.full_for(b"ada")) == (0, None)


def test_who_is_not_known_has_no_share() -> None:
    places = Places(3, 1)
    places.take(b"")
    places.take(b"")
    assert places.full_for(b"") is None
    places.take(b"")
    assert places.full_for(b"") == "all"
