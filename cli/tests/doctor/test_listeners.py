"""All ports of the services, and what the services say of themselves: one of them is wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli.tests.doctor.conftest import Examined
from cli.tests.fake_services import Pair
from cli.tests.good_listeners import serving
from cli.tests.homes import AGEING, Home, Root
from cli.tests.wrong_listeners import SETTINGS, listening, saying, secured

from selvedge_cli.addresses import Addresses
from selvedge_cli.doctor import listeners, operations
from selvedge_cli.doctor.findings import Finding, Severity
from selvedge_cli.doctor.installation import Installation
from selvedge_common.comm import GRPCServer
from selvedge_common.operations import OperationsServer, OperationsTLS

Checks = Mapping[str, Callable[[], None]]


@asynccontextmanager
async def healthy(
    home: Home, *, serves: bool = True, pair: Pair | None = None
) -> AsyncIterator[Addresses]:
    """All services: each port is one of two servers, gRPC or the operations endpoint."""

    def add(server: GRPCServer) -> None:
        server.set_serving("", serves)

    async with serving(home, add, pair=pair) as address, operating(home, {}) as endpoint:
        yield Addresses(*[address] * 5, *[endpoint] * 3)


@asynccontextmanager
async def operating(home: Home, checks: Checks) -> AsyncIterator[str]:
    issued = home.tls.issue("service")
    files = home.path / "operations.crt", home.path / "operations.key"
    for file, content in zip(files, (issued.certificate_pem, issued.key_pem), strict=True):
        file.write_bytes(content)
    server = OperationsServer("127.0.0.1:0", OperationsTLS(*files), checks, "1")
    await server.start()
    try:
        yield f"localhost:{server.address.rpartition(':')[2]}"
    finally:
        await server.stop()


async def examine(installation: Installation) -> list[Finding]:
    """What both examinations find; they run event loops of their own."""
    return await asyncio.to_thread(
        lambda: [*listeners.examine(installation), *operations.examine(installation)]
    )


async def test_services_as_they_should_be(examined: Examined, home: Home) -> None:
    async with healthy(home) as addresses:
        assert await examine(examined(addresses=addresses)) == []


async def test_nothing_runs_is_one_finding(examined: Examined, home: Home) -> None:
    nobody = Addresses(*[f"localhost:{port}" for port in range(1, 9)])
    (finding,) = await examine(examined(addresses=nobody))
    assert finding.severity is Severity.ERROR
    assert finding.what == "no service runs here, for nothing listens at any of them"
    assert str(home.path) in finding.remedy


async def test_one_service_that_is_down_is_told_with_its_log(
    examined: Examined, home: Home
) -> None:
    (home.path / "up.lock").write_text(f"{os.getpid()}\n")
    log = home.path / "logs" / "event-hub.log"
    log.parent.mkdir()
    log.touch()
    async with healthy(home) as addresses:
        (finding,) = await examine(examined(addresses=replace(addresses, events="localhost:1")))
    assert finding.where == "localhost:1, event-hub's events"
    assert finding.what == "nothing listens there"
    assert finding.remedy == f"`selvedge up` runs as process {os.getpid()}: {log} says why"


async def test_port_that_something_else_has(examined: Examined, home: Home) -> None:
    with listening(saying(b"SSH-2.0-OpenSSH\r\n")) as taken:
        async with healthy(home) as addresses:
            (finding,) = await examine(examined(addresses=replace(addresses, peer=taken)))
    assert finding.where == f"{taken}, chaincode-support's peer API"
    assert finding.what.startswith("speaks neither TLS nor HTTP")
    assert finding.remedy.startswith("another program has this port")


async def test_service_of_another_home(examined: Examined, home: Home, tmp_path: Path) -> None:
    foreign = secured(Root("other").issue("service"), tmp_path, talk=saying(SETTINGS))
    with listening(foreign) as taken:
        async with healthy(home) as addresses:
            (finding,) = await examine(examined(addresses=replace(addresses, orderer=taken)))
    assert finding.what.startswith("presents a certificate of another root than")
    assert "--home" in finding.remedy


async def test_operations_endpoint_without_tls(examined: Examined, home: Home) -> None:
    with listening(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as endpoint:
        async with healthy(home) as addresses:
            installation = examined(addresses=replace(addresses, ca_operations=endpoint))
            (finding,) = await examine(installation)
    assert finding.where == f"{endpoint}, ca's operations endpoint"
    assert finding.what == "speaks HTTP without TLS"
    assert "operations.tls.enabled" in finding.remedy


async def test_certificates_of_the_listeners_near_their_end(examined: Examined, home: Home) -> None:
    pair = home.tls.issue("service", span=AGEING)
    async with healthy(home, pair=pair) as addresses:
        found = await examine(examined(addresses=addresses))
    assert len(found) == 5
    assert {finding.severity for finding in found} == {Severity.WARNING}
    assert all("presents a certificate that expires on" in finding.what for finding in found)


async def test_listener_that_says_it_does_not_serve(examined: Examined, home: Home) -> None:
    async with healthy(home, serves=False) as addresses:
        found = await examine(examined(addresses=addresses))
    assert {finding.what for finding in found} == {"says that it is NOT_SERVING"}
    assert len(found) == 5


async def test_without_a_user_only_what_needs_none_is_examined(
    examined: Examined, home: Home
) -> None:
    async with healthy(home) as addresses:
        assert await examine(examined(addresses=addresses, user="nobody")) == []


async def test_component_that_is_not_well(examined: Examined, home: Home) -> None:
    def fail() -> None:
        raise RuntimeError("the disk is full")

    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(healthy(home))
        sick = await stack.enter_async_context(operating(home, {"committer": fail}))
        (finding,) = await examine(examined(addresses=replace(addresses, peer_operations=sick)))
    assert (finding.where, finding.severity) == (f"{sick}, chaincode-support", Severity.ERROR)
    assert finding.what == "its committer is not well: the disk is full"


async def test_endpoint_that_answers_something_else(
    examined: Examined, home: Home, tmp_path: Path
) -> None:
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    other = secured(home.tls.issue("service"), tmp_path, talk=saying(answer), protocol=None)
    with listening(other) as endpoint:
        async with healthy(home) as addresses:
            (finding,) = await examine(
                examined(addresses=replace(addresses, peer_operations=endpoint))
            )
    assert finding.what == "/healthz answers 404"


async def test_endpoint_that_does_not_answer(
    examined: Examined, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "ANSWER", 0.1)
    silent = secured(home.tls.issue("service"), tmp_path, talk=saying(b""), protocol=None)
    with listening(silent) as endpoint:
        installation = examined(addresses=Addresses(peer_operations=endpoint))
        (finding,) = operations.examine(installation)
    assert finding.what == "/healthz does not answer (The read operation timed out)"


@pytest.mark.parametrize(
    ("apart", "severity"),
    [(timedelta(minutes=-20), Severity.ERROR), (timedelta(minutes=6), Severity.WARNING)],
)
async def test_clocks_that_differ(
    examined: Examined, home: Home, apart: timedelta, severity: Severity
) -> None:
    async with healthy(home) as addresses:
        installation = examined(addresses=addresses, now=datetime.now(UTC) + apart)
        found = await asyncio.to_thread(lambda: list(operations.examine(installation)))
    assert {finding.where for finding in found} == {"ca", "chaincode-support", "event-hub"}
    assert {finding.severity for finding in found} == {severity}
    assert all("its clock and this machine's are" in finding.what for finding in found)
