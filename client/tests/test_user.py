"""Who signs and dials: the files of a user, and of a home."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest
from eventhouse import House
from organisation import Organisation

from selvedge_client import Client, CredentialsError, Event, User


@pytest.fixture
def folder(tmp_path: Path, organisation: Organisation) -> Path:
    organisation.write_material(tmp_path / "user1")
    return tmp_path / "user1"


def test_user_is_read_from_its_folders(folder: Path) -> None:
    user = User.read(folder / "msp", folder / "tls", mspid="Org7MSP")
    assert user.signer.mspid == "Org7MSP"
    assert user.tls_root == (folder / "tls/ca.crt").read_bytes()
    assert len(user.tls_hash) == 32


def test_user_may_have_less(folder: Path) -> None:
    assert User.read(folder / "msp", None).tls_root == b""
    for name in ("client.crt", "client.key"):
        (folder / "tls" / name).unlink()
    known = User.read(folder / "msp", folder / "tls")
    assert known.tls_root
    assert (known.tls_certificate, known.tls_hash) == (b"", b"")


@pytest.mark.parametrize("missing", ["msp/keystore/key.pem", "tls/client.key", "tls/ca.crt"])
def test_file_that_is_missing_is_named(missing: str, folder: Path) -> None:
    (folder / missing).unlink()
    with pytest.raises(CredentialsError, match=missing.rpartition("/")[0]):
        User.read(folder / "msp", folder / "tls")


async def first(events: AsyncGenerator[Event, None]) -> Event:
    async with aclosing(events):
        return await anext(events)


async def test_home_says_who_and_where(
    house: House, organisation: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = await house.hub()
    home = house.folder / "home"
    organisation.write_material(home / "crypto/users/alice")
    committed = house.ledger.transaction()
    await house.ledger.commit(committed)

    addresses = home / "addresses.json"
    addresses.write_text(json.dumps({"events": hub.address}))
    event = await first(Client.of_home(home, "alice").subscribe("mychannel", start=0))
    assert event.txid == committed.txid

    addresses.write_text("{")
    with pytest.raises(CredentialsError, match=r"addresses\.json cannot be read"):
        Client.of_home(home)

    monkeypatch.setenv("SELVEDGE_HOME", str(home))
    monkeypatch.setenv("SELVEDGE_EVENTS", hub.address)
    event = await first(Client.of_home(user="alice").subscribe("mychannel", start=0))
    assert event.txid == committed.txid
    with pytest.raises(CredentialsError, match="bob"):
        await first(Client.of_home(user="bob").subscribe("mychannel"))


async def test_renewed_certificates_are_used_for_the_next_connection(
    house: House, organisation: Organisation, folder: Path
) -> None:
    hub = await house.hub()
    read: list[User] = []

    def user() -> User:
        read.append(User.read(folder / "msp", folder / "tls"))
        return read[-1]

    client = Client(hub.address, user)
    await house.ledger.commit(house.ledger.transaction())
    for _ in range(2):
        await first(client.subscribe("mychannel", start=0))
        organisation.write_material(folder)
    assert read[0].tls_hash != read[-1].tls_hash
