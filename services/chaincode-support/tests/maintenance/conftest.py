"""A sound channel, made once, and copies of it to do harm to."""

from pathlib import Path

import pytest
from testchannel import Network
from volumes import copy_of, make_volume

from chaincode_support.volume import ChannelFiles


@pytest.fixture(scope="session")
def network() -> Network:
    return Network()


@pytest.fixture(scope="session")
def sound(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume that must not be changed."""
    return make_volume(network, tmp_path_factory.mktemp("sound"))


@pytest.fixture
def files(sound: Path, tmp_path: Path) -> ChannelFiles:
    """The channel in a copy of that volume."""
    return copy_of(sound, tmp_path / "volume")
