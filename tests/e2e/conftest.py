"""One suite, two drivers: every test runs over local processes and over containers."""

import uuid
from collections.abc import Iterator

import pytest
from tests.e2e.containers import Containers
from tests.e2e.processes import Processes
from tests.e2e.stack import Stack
from tests.e2e.tools import REQUIRE_ALL, engine_answers

DRIVERS: dict[str, type[Stack]] = {"processes": Processes, "containers": Containers}
ENGINE_MISSING = (
    "not run: the end-to-end suite over containers, since no Docker engine with Compose v2 "
    "answers; start one (on Debian, as root: .ci/engine install && .ci/engine start && "
    ".ci/engine base-image) and run make e2e again"
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stack" in metafunc.fixturenames:
        names = [n for n in DRIVERS if n != "containers" or engine_answers() or REQUIRE_ALL]
        metafunc.parametrize("stack", names, indirect=True, scope="session")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not engine_answers():
        terminalreporter.write_line(ENGINE_MISSING)


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A running Selvedge with the sample chaincode, shared by the tests of one driver."""
    if request.param == "containers" and not engine_answers():
        pytest.fail(ENGINE_MISSING)
    running = DRIVERS[request.param](tmp_path_factory.mktemp(request.param))
    try:
        running.up()
        yield running
    finally:
        running.down()


@pytest.fixture
def unique() -> str:
    """A key prefix that no other test, and no earlier run on the same ledger, has used."""
    return f"k{uuid.uuid4().hex[:12]}"
