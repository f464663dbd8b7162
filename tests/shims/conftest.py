"""Each shim, unmodified, dialled in to a stack on each transport."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from tests.e2e.clients import CHANNEL, Client
from tests.e2e.processes import Processes
from tests.e2e.stack import Stack
from tests.e2e.tools import require
from tests.shims.chaincodes import CHAINCODES, Chaincode, initialised
from tests.shims.running import Running, dialling

OTHER_CHANNEL = "otherchannel"
_SETTINGS = {
    "channel": {"names": [CHANNEL, OTHER_CHANNEL]},
    "chaincode": {
        "initRequired": [initialised(each) for each in CHAINCODES],
        "packagesInterval": "200ms",
        "relaunch": {"firstPause": "100ms"},
    },
}


@pytest.fixture(scope="session", params=["native", "grpcio"])
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A running Selvedge."""
    running = Processes(tmp_path_factory.mktemp(request.param))
    running.transport = request.param
    running.home.mkdir()
    (running.home / "chaincode-support.yaml").write_text(yaml.safe_dump(_SETTINGS))
    try:
        running.up()
        yield running
    finally:
        running.down()


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[Client]:
    """An application, as a user of the organisation."""
    with Client(stack) as application:
        yield application


@pytest.fixture(scope="session")
def contracts(stack: Stack, client: Client) -> Iterator[dict[str, Running]]:
    """All the chaincodes that can run here, running, by name."""
    found = {
        chaincode.name: dialling(stack, client, chaincode, stack.folder)
        for chaincode in CHAINCODES
        if not chaincode.missing()
    }
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Running.start, found.values()))
        yield found
    finally:
        for contract in found.values():
            contract.stop()


@pytest.fixture
def contract(request: pytest.FixtureRequest, contracts: dict[str, Running]) -> Running:
    """One of them: `having` says which."""
    chaincode: Chaincode = request.param
    require_all(chaincode)
    return contracts[chaincode.name]


def require_all(chaincode: Chaincode) -> None:
    """Have a test say what is missing to run a chaincode, if anything is."""
    for program in chaincode.missing():
        require(program)


@pytest.fixture
def unique() -> str:
    """A key prefix that no other test has used."""
    return f"k{uuid.uuid4().hex[:12]}"
