"""Shells whose CORE_PEER_ADDRESS names the chaincode listener, or another place."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli.tests.doctor.conftest import Examined
from cli.tests.good_listeners import serving
from cli.tests.homes import Home, Root
from cli.tests.wrong_listeners import SETTINGS, listening, saying, secured

from selvedge_cli.addresses import Addresses
from selvedge_cli.doctor import address as address_
from selvedge_cli.doctor.findings import Finding, Severity
from selvedge_cli.doctor.shell import ADDRESS, NAME

CHAINCODE = "localhost:2"
NOWHERE = Addresses(
    peer="localhost:1",
    chaincode=CHAINCODE,
    orderer="localhost:3",
    events="localhost:4",
    ca="localhost:5",
    peer_operations="localhost:6",
    events_operations="localhost:7",
    ca_operations="localhost:8",
)
REMEDY = f"chaincode dials {CHAINCODE}: export CORE_PEER_ADDRESS={CHAINCODE}"
Find = Callable[..., Awaitable[list[Finding]]]


@pytest.fixture
def find(examined: Examined) -> Find:
    """Examine a shell of chaincode mycc that dials an address."""

    async def find(dialled: str, addresses: Addresses = NOWHERE) -> list[Finding]:
        environ = {NAME: "mycc:1.0", ADDRESS: dialled}
        installation = examined(environ, addresses=addresses)
        return await asyncio.to_thread(lambda: list(address_.examine(installation)))

    return find


@pytest.fixture
async def service(home: Home) -> AsyncIterator[str]:
    """The address of a service of the home, which demands certificates."""
    async with serving(home) as address:
        yield address


@pytest.mark.parametrize("dialled", ["", " ", CHAINCODE])
async def test_chaincode_listener_is_left_to_the_listeners(find: Find, dialled: str) -> None:
    assert await find(dialled) == []


async def test_chaincode_listener_by_another_name_is_well(find: Find, home: Home) -> None:
    pair = home.tls.issue("service", names=["localhost", "127.0.0.1"])
    async with serving(home, pair=pair) as service:
        other_name = service.replace("localhost", "127.0.0.1")
        assert await find(other_name, replace(NOWHERE, chaincode=service)) == []


@pytest.mark.parametrize(
    ("whose", "purpose"),
    [
        ("peer", "the peer API, which Fabric's `peer` command dials, and a chaincode must not"),
        ("orderer", "chaincode-support's ordering, where no chaincode registers"),
        ("events", "event-hub's events, where no chaincode registers"),
        ("ca", "ca's certificates, where no chaincode registers"),
        ("ca_operations", "ca's operations endpoint, where no chaincode registers"),
    ],
)
async def test_other_listener_of_ours_is_told(
    find: Find, service: str, whose: str, purpose: str
) -> None:
    (finding,) = await find(service, replace(NOWHERE, **{whose: service}))
    assert (finding.where, finding.severity) == (ADDRESS, Severity.ERROR)
    assert (finding.what, finding.remedy) == (f"{service} is {purpose}", REMEDY)


async def test_other_listener_of_ours_is_told_while_it_is_down(find: Find) -> None:
    (finding,) = await find(NOWHERE.orderer)
    assert finding.what == (
        "localhost:3 is chaincode-support's ordering, where no chaincode registers (nothing "
        "listens there)"
    )


async def test_nothing_listens_there(find: Find) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = f"localhost:{taken.getsockname()[1]}"
    (finding,) = await find(free)
    assert finding.severity is Severity.ERROR
    assert (finding.what, finding.remedy) == (f"{free}: nothing listens there", REMEDY)


async def test_plaintext_is_told(find: Find) -> None:
    with listening(saying(SETTINGS)) as dialled:
        (finding,) = await find(dialled)
    assert finding.what == f"{dialled}: speaks gRPC without TLS"


async def test_other_root_is_told(find: Find, tmp_path: Path) -> None:
    stranger = Root("other").issue("service")
    with listening(secured(stranger, tmp_path, talk=saying(SETTINGS))) as dialled:
        (finding,) = await find(dialled)
    assert finding.severity is Severity.ERROR
    assert finding.what.startswith(f"{dialled}: presents a certificate of another root than ")


async def test_unknown_service_of_our_root_is_noted(find: Find, service: str) -> None:
    (finding,) = await find(service)
    assert finding.severity is Severity.NOTE
    assert "at none of this home's addresses" in finding.what
    assert finding.remedy == (
        f"{REMEDY}; if it is the chaincode listener, export SELVEDGE_CHAINCODE={service}"
    )


@pytest.mark.parametrize("dialled", ["localhost", "grpcs://localhost:7052/", "localhost:0"])
async def test_address_that_is_none(find: Find, dialled: str) -> None:
    (finding,) = await find(dialled)
    assert (finding.severity, finding.what) == (
        Severity.ERROR,
        f"{dialled!r} is no address",
    )


def test_shell_without_a_chaincode_may_be_meant_for_the_peer_command(examined: Examined) -> None:
    environ = {ADDRESS: NOWHERE.peer}
    (finding,) = address_.examine(examined(environ, addresses=NOWHERE))
    assert finding.severity is Severity.WARNING
    (finding,) = address_.examine(examined(environ, addresses=NOWHERE, chaincode="mycc"))
    assert finding.severity is Severity.ERROR
