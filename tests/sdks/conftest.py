"""Applications on Fabric's own SDKs, unmodified, against a stack on each transport."""

import uuid
from collections.abc import Iterator

import pytest
import yaml
from tests.e2e.clients import Client
from tests.e2e.processes import Processes
from tests.e2e.stack import Stack
from tests.sdks.fabric_network import Application
from tests.shims.chaincodes import PYTHON
from tests.shims.running import Running, dialling

MAX_BYTES = 256 * 1024  # of a transaction: few, so that one that is refused is soon written
_SETTINGS = {"orderer": {"batchSize": {"absoluteMaxBytes": MAX_BYTES, "preferredMaxBytes": "64KB"}}}


@pytest.fixture(scope="session", params=["native", "grpcio"])
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A running Selvedge, with the sample chaincode."""
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
def application(stack: Stack) -> Iterator[Application]:
    """An application of user1 that nobody restarts."""
    with Application(stack) as connected:
        yield connected


@pytest.fixture(scope="session", params=["peer", "events"])
def listening(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Application]:
    """An application of user1 that hears from the peer, or from the event hub."""
    with Application(stack, peer=request.param) as connected:
        yield connected


@pytest.fixture(scope="session")
def contract(stack: Stack) -> Iterator[Running]:
    """The contract of the shims' tests, running."""
    with Client(stack) as client:
        chaincode = dialling(stack, client, PYTHON, stack.folder)
        try:
            chaincode.start()
            yield chaincode
        finally:
            chaincode.stop()


@pytest.fixture
def unique() -> str:
    """An id that no other test has used."""
    return f"k{uuid.uuid4().hex[:12]}"
