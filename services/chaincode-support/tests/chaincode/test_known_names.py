"""What is remembered of chaincodes over a restart, and what a restart may then expect."""

import asyncio
from pathlib import Path

import pytest
from rawshim import Dial, StartPeer

from chaincode_support.chaincode import known_names
from chaincode_support.chaincode.errors import LaunchTimeout, UnknownChaincode
from chaincode_support.chaincode.known_names import KnownNames


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "known-chaincodes"


async def test_a_proposal_waits_for_a_chaincode_from_before_the_restart(
    start_peer: StartPeer, dial: Dial, file: Path
) -> None:
    before = await start_peer(names=KnownNames(file))
    await dial(before, "mycc:1.0")
    after = await start_peer(names=KnownNames(file))
    waiting = asyncio.create_task(after.execute("mycc"))
    shim = await dial(after, "mycc:1.1")
    await shim.complete(await shim.hear())
    assert (await waiting).response.status == 200
    with pytest.raises(UnknownChaincode):
        await after.execute("another")


async def test_one_that_stays_away_is_given_up(
    start_peer: StartPeer, dial: Dial, file: Path
) -> None:
    await dial(await start_peer(names=KnownNames(file)), "mycc:1.0")
    after = await start_peer(names=KnownNames(file), startup_timeout=0.05)
    with pytest.raises(LaunchTimeout):
        await after.execute("mycc")


def test_only_a_new_name_is_written(file: Path) -> None:
    names = KnownNames(file)
    names.add("a")
    file.unlink()
    names.add("a")
    assert not file.exists()
    names.add("b")
    assert file.read_text().split() == ["a", "b"]


def test_the_names_that_registered_last_are_kept(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_names, "MAX_NAMES", 2)
    names = KnownNames(file)
    for name in ("a", "b", "a", "c"):
        names.add(name)
    for remembered in (names, KnownNames(file)):
        assert [name in remembered for name in "abc"] == [True, False, True]


@pytest.mark.parametrize("make", [Path.mkdir, lambda file: file.write_bytes(b"\xff\x00\n")])
def test_a_file_that_cannot_be_used_is_no_reason_to_refuse(file: Path, make: object) -> None:
    make(file)  # type: ignore[operator]
    names = KnownNames(file)
    names.add("a")
    assert "a" in names
