"""A peer with block 0, the hubs that a test starts on it, and users."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from deliver_peer import Ledger, Peer
from eventhouse import House
from organisation import Organisation

from selvedge_client import User


@pytest.fixture(scope="session")
def organisation() -> Organisation:
    return Organisation()


@pytest.fixture(scope="session")
def stranger() -> Organisation:
    """Another organisation that gives itself the same MSP id."""
    return Organisation()


@pytest.fixture
async def house(tmp_path: Path, organisation: Organisation) -> AsyncIterator[House]:
    """A peer with block 0, ready to be read."""
    organisation.write_material(tmp_path)
    ledger = Ledger(organisation)
    await ledger.commit()
    peer = Peer(organisation, ledger)
    await peer.start()
    made = House(tmp_path, organisation, ledger, peer)
    yield made
    await made.end()


@pytest.fixture
def user(organisation: Organisation) -> Callable[[], User]:
    """A member of the organisation."""
    certificate, key = organisation.tls_pair("client")
    made = User(organisation.identity("user"), organisation.tls.pem, certificate, key)
    return lambda: made
