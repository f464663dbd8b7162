"""Chaincodes that fail, hang or are away, and the way of one of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from cli.tests.doctor.conftest import Examined
from cli.tests.good_listeners import Chaincodes, serving
from cli.tests.homes import NOW, Home

from selvedge_cli.addresses import Addresses
from selvedge_cli.doctor import chaincodes, registration
from selvedge_cli.doctor.findings import Finding, Severity
from selvedge_cli.doctor.installation import Installation
from selvedge_common.comm import StatusError
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import Chaincode, Stream

NOBODY = "localhost:1"


@pytest.fixture
def peer(home: Home) -> Chaincodes:
    return Chaincodes(home.msp)


@pytest.fixture
async def address(home: Home, peer: Chaincodes) -> AsyncIterator[str]:
    """Of a peer and its chaincode listener, which demand certificates."""
    async with serving(home, peer.add_to) as address:
        yield address


Find = Callable[..., Awaitable[list[Finding]]]


@pytest.fixture
def find(examined: Examined, address: str) -> Find:
    async def find(
        examine: Callable[[Installation], Iterator[Finding]] = chaincodes.examine,
        environ: dict[str, str] | None = None,
        **fields: object,
    ) -> list[Finding]:
        addresses = Addresses(peer=address, chaincode=address)
        installation = examined(environ, **{"addresses": addresses, **fields})
        return await asyncio.to_thread(lambda: list(examine(installation)))

    return find


def serving_stream(state: Stream.State.ValueType = Stream.READY) -> Stream:
    stream = Stream(registered_name="mycc:1.0", peer="ipv4:127.0.0.1:50000", state=state)
    stream.since.FromDatetime(NOW - timedelta(days=5, hours=2))
    return stream


async def test_chaincodes_that_do_well(find: Find, peer: Chaincodes) -> None:
    peer.known = [
        Chaincode(name="mycc", streams=[serving_stream()]),
        Chaincode(name="lscc", launcher=Chaincode.SYSTEM),
    ]
    assert await find() == []


def failed(hours_ago: float, **fields: Any) -> Chaincode:
    """A chaincode whose last error was then; its stream is up for five days and two hours."""
    stream = serving_stream()
    stream.completed = fields.get("completed", 0)
    usual = {"name": "mycc", "streams": [stream], "failed": 1, "last_error": "no asset\n a1"}
    chaincode = Chaincode(**{**usual, **fields})
    chaincode.last_error_at.FromDatetime(NOW - timedelta(hours=hours_ago))
    return chaincode


async def test_last_error_is_told_where_nothing_succeeded(find: Find, peer: Chaincodes) -> None:
    peer.known = [failed(74)]
    (finding,) = await find()
    assert (finding.where, finding.severity) == ("chaincode mycc", Severity.WARNING)
    assert "its last error was 3d 2h ago: no asset\\n a1; look at its log" in str(finding)


@pytest.mark.parametrize(
    "chaincode",
    [
        failed(74, completed=3),
        failed(200),
        failed(74, failed=0),
        failed(74, launcher=Chaincode.SYSTEM, streams=[]),
    ],
    ids=["others succeeded", "started again since", "no transaction failed", "part of the peer"],
)
async def test_last_error_that_may_be_over_is_noted(
    find: Find, peer: Chaincodes, chaincode: Chaincode
) -> None:
    peer.known = [chaincode]
    (finding,) = await find()
    assert finding.severity is Severity.NOTE
    assert finding.what.startswith("its last error was ")


async def test_last_error_before_successes_is_not_told(find: Find, peer: Chaincodes) -> None:
    peer.known = [failed(200, completed=3)]
    assert await find() == []


async def test_stream_that_hangs_is_told(find: Find, peer: Chaincodes) -> None:
    peer.known = [Chaincode(name="mycc", streams=[serving_stream(Stream.UNRESPONSIVE)])]
    (finding,) = await find()
    assert finding.severity is Severity.ERROR
    assert finding.what.startswith("mycc:1.0 at ipv4:127.0.0.1:50000 let a transaction time out")


@pytest.mark.parametrize(
    ("launcher", "remedy"),
    [
        (Chaincode.SERVICE, "see that it serves at the address in its package"),
        (Chaincode.PROCESS, "its log says why it ended"),
    ],
)
async def test_packaged_chaincode_that_ends_again_and_again_is_told(
    find: Find, peer: Chaincodes, launcher: Chaincode.Launcher.ValueType, remedy: str
) -> None:
    state = "waiting 4.0 s to start it again, since it ended with exit status 1"
    peer.known = [Chaincode(name="mycc", launcher=launcher, launcher_state=state)]
    (finding,) = await find()
    assert (finding.severity, finding.what, finding.remedy) == (
        Severity.WARNING,
        f"it is not connected: {state}",
        remedy,
    )


@pytest.mark.parametrize("launcher", [Chaincode.SERVICE, Chaincode.PROCESS])
@pytest.mark.parametrize(
    "state",
    ["to be launched when it is first called", "starting", "superseded by package mycc:0123"],
)
async def test_packaged_chaincode_that_was_not_called_is_well(
    find: Find, peer: Chaincodes, launcher: Chaincode.Launcher.ValueType, state: str
) -> None:
    peer.known = [Chaincode(name="mycc", launcher=launcher, launcher_state=state)]
    assert await find() == []


async def test_broken_package_is_told_with_its_reason(find: Find, peer: Chaincodes) -> None:
    peer.known = [Chaincode(name="mycc", launcher_state="broken package: it has no label")]
    (finding,) = await find()
    assert (finding.severity, finding.what, finding.remedy) == (
        Severity.WARNING,
        "it is a broken package: it has no label",
        "mend the package, or remove it",
    )


async def test_chaincode_that_is_gone_is_noted_once(find: Find, peer: Chaincodes) -> None:
    peer.known = [failed(74, launcher=Chaincode.EXTERNAL, streams=[])]
    (finding,) = await find()
    assert (finding.severity, finding.what) == (Severity.NOTE, "it is not connected any more")
    assert "start it if it is still wanted" in finding.remedy


async def test_peer_that_refuses_to_tell(find: Find, peer: Chaincodes) -> None:
    peer.refusal = StatusError(grpc.StatusCode.UNAUTHENTICATED, "the clock is wrong")
    (finding,) = await find()
    assert finding.severity is Severity.WARNING
    assert finding.what.endswith("refused: UNAUTHENTICATED: the clock is wrong")


async def test_peer_that_cannot_tell(home: Home, examined: Examined) -> None:
    async with serving(home) as address:
        installation = examined(addresses=Addresses(peer=address))
        (finding,) = await asyncio.to_thread(lambda: list(chaincodes.examine(installation)))
    assert finding.severity is Severity.NOTE
    assert "another one than Selvedge's, or an older one" in finding.what


async def test_peer_that_is_not_there_is_not_a_matter_of_chaincodes(find: Find) -> None:
    assert await find(addresses=Addresses(peer=NOBODY)) == []
    assert await find(user="nobody") == []


@pytest.fixture
def examine_mycc(find: Find) -> Find:
    """Examine the way of mycc."""

    async def examine_mycc(
        environ: dict[str, str] | None = None, **fields: object
    ) -> list[Finding]:
        return await find(registration.examine, environ, **{"chaincode": "mycc", **fields})

    return examine_mycc


def errors(found: list[Finding]) -> list[str]:
    return [finding.what for finding in found if finding.severity is Severity.ERROR]


async def test_registration_is_only_examined_when_asked(find: Find) -> None:
    assert await find(registration.examine) == []


async def test_way_that_leads_to_the_peer(examine_mycc: Find, home: Home, peer: Chaincodes) -> None:
    home.add_chaincode("mycc")
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    found = await examine_mycc({"CORE_CHAINCODE_ID_NAME": "mycc:2.0"})
    assert [(finding.severity, finding.what) for finding in found] == [
        (Severity.NOTE, "the chaincode listener accepts it"),
        (
            Severity.NOTE,
            "it is registered as mycc:1.0 from ipv4:127.0.0.1:50000, ready, up 5d 2h",
        ),
    ]


async def test_chaincode_without_a_certificate(examine_mycc: Find, peer: Chaincodes) -> None:
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    found = await examine_mycc()
    assert errors(found) == ["mycc has no certificate"]
    assert found[0].remedy == "run `selvedge ca issue --chaincode mycc`"


async def test_chaincode_that_never_registered(examine_mycc: Find, home: Home) -> None:
    home.add_chaincode("mycc")
    assert errors(await examine_mycc()) == ["it never registered with this peer"]


async def test_chaincode_that_has_left(examine_mycc: Find, home: Home, peer: Chaincodes) -> None:
    home.add_chaincode("mycc")
    peer.known = [Chaincode(name="mycc", launcher=Chaincode.EXTERNAL)]
    assert errors(await examine_mycc()) == ["it registered before, and is not connected now"]


async def test_chaincode_of_another_ca(examine_mycc: Find, home: Home, peer: Chaincodes) -> None:
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    foreign = Home(home.path.parent / "other").add_chaincode("mycc")
    shutil.copytree(foreign, home.path / "crypto" / "chaincodes" / "mycc")
    (what,) = errors(await examine_mycc())
    assert what.startswith("presents a certificate of another root than")


async def test_defect_is_left_to_the_certificates_own_examination(
    examine_mycc: Find, home: Home, peer: Chaincodes
) -> None:
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    home.add_chaincode("mycc", named="yourcc")
    assert errors(await examine_mycc()) == []


async def test_listener_that_is_down(examine_mycc: Find, home: Home, address: str) -> None:
    home.add_chaincode("mycc")
    found = await examine_mycc(addresses=Addresses(peer=address, chaincode=NOBODY))
    assert errors(found) == ["nothing listens there", "it never registered with this peer"]
    assert found[0].where == f"{NOBODY}, dialled with mycc's certificate"


async def test_shell_in_which_another_chaincode_starts(
    examine_mycc: Find, home: Home, peer: Chaincodes
) -> None:
    home.add_chaincode("mycc")
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    assert errors(await examine_mycc({"CORE_CHAINCODE_ID_NAME": "yourcc:1.0"})) == [
        "in this shell a chaincode registers as yourcc, and not as mycc"
    ]


async def test_listener_that_the_shell_names_is_dialled(
    examine_mycc: Find, home: Home, peer: Chaincodes, address: str
) -> None:
    home.add_chaincode("mycc")
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    async with serving(home) as named:
        found = await examine_mycc({"CORE_PEER_ADDRESS": named})
    assert found[0].where == f"{named}, dialled with mycc's certificate"


async def test_listener_is_not_praised_in_a_shell_that_dials_elsewhere(
    examine_mycc: Find, home: Home, peer: Chaincodes, address: str
) -> None:
    home.add_chaincode("mycc")
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    (finding,) = await examine_mycc({"CORE_PEER_ADDRESS": NOBODY})
    assert finding.what.startswith("it is registered as mycc:1.0")
