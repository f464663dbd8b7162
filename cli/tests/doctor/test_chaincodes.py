"""Chaincodes that fail, hang or are away, and the way of one of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta

import grpc
import pytest
from cli.tests.doctor.conftest import Visit
from cli.tests.good_listeners import Chaincodes, serving
from cli.tests.homes import NOW, Home

from selvedge_cli.addresses import Addresses
from selvedge_cli.doctor import chaincodes, way
from selvedge_cli.doctor.findings import Finding, Severity
from selvedge_cli.doctor.site import Site
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
def find(visit: Visit, address: str) -> Find:
    async def find(
        examine: Callable[[Site], Iterator[Finding]] = chaincodes.examine,
        environ: dict[str, str] | None = None,
        **fields: object,
    ) -> list[Finding]:
        addresses = Addresses(peer=address, chaincode=address)
        site = visit(environ, **{"addresses": addresses, **fields})
        return await asyncio.to_thread(lambda: list(examine(site)))

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


async def test_last_error_is_told(find: Find, peer: Chaincodes) -> None:
    failed = Chaincode(name="mycc", streams=[serving_stream()], last_error="no asset\n a1")
    failed.last_error_at.FromDatetime(NOW - timedelta(days=3, hours=2))
    peer.known = [failed]
    (finding,) = await find()
    assert (finding.where, finding.severity) == ("chaincode mycc", Severity.WARNING)
    assert "its last error was 3d 2h ago: no asset\\n a1; look at its log" in str(finding)


async def test_stream_that_hangs_is_told(find: Find, peer: Chaincodes) -> None:
    peer.known = [Chaincode(name="mycc", streams=[serving_stream(Stream.UNRESPONSIVE)])]
    (finding,) = await find()
    assert finding.severity is Severity.ERROR
    assert finding.what.startswith("mycc:1.0 at ipv4:127.0.0.1:50000 let a transaction time out")


@pytest.mark.parametrize(
    ("launcher", "remedy"),
    [
        (Chaincode.EXTERNAL, "start it; `selvedge doctor --chaincode mycc` examines its way"),
        (Chaincode.SERVICE, "see that it serves at the address in its package"),
        (Chaincode.PROCESS, "the peer starts it when it is called"),
    ],
)
async def test_chaincode_that_is_away_is_told(
    find: Find, peer: Chaincodes, launcher: Chaincode.Launcher.ValueType, remedy: str
) -> None:
    peer.known = [Chaincode(name="mycc", launcher=launcher, launcher_state="waits 4 s")]
    (finding,) = await find()
    assert (finding.severity, finding.what) == (
        Severity.WARNING,
        "it is not connected: waits 4 s",
    )
    assert finding.remedy.startswith(remedy)


async def test_peer_that_refuses_to_tell(find: Find, peer: Chaincodes) -> None:
    peer.refusal = StatusError(grpc.StatusCode.UNAUTHENTICATED, "the clock is wrong")
    (finding,) = await find()
    assert finding.severity is Severity.WARNING
    assert finding.what.endswith("refused: UNAUTHENTICATED: the clock is wrong")


async def test_peer_that_cannot_tell(home: Home, visit: Visit) -> None:
    async with serving(home) as address:
        site = visit(addresses=Addresses(peer=address))
        (finding,) = await asyncio.to_thread(lambda: list(chaincodes.examine(site)))
    assert finding.severity is Severity.NOTE
    assert "another one than Selvedge's, or an older one" in finding.what


async def test_peer_that_is_not_there_is_not_a_matter_of_chaincodes(find: Find) -> None:
    assert await find(addresses=Addresses(peer=NOBODY)) == []
    assert await find(user="nobody") == []


@pytest.fixture
def go(find: Find) -> Find:
    """Examine the way of mycc."""

    async def go(environ: dict[str, str] | None = None, **fields: object) -> list[Finding]:
        return await find(way.examine, environ, **{"chaincode": "mycc", **fields})

    return go


def errors(found: list[Finding]) -> list[str]:
    return [finding.what for finding in found if finding.severity is Severity.ERROR]


async def test_way_is_only_examined_when_asked(find: Find) -> None:
    assert await find(way.examine) == []


async def test_way_that_leads_to_the_peer(go: Find, home: Home, peer: Chaincodes) -> None:
    home.add_chaincode("mycc")
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    found = await go({"CORE_CHAINCODE_ID_NAME": "mycc:2.0"})
    assert [(finding.severity, finding.what) for finding in found] == [
        (Severity.NOTE, "the chaincode listener accepts it"),
        (
            Severity.NOTE,
            "it is registered as mycc:1.0 from ipv4:127.0.0.1:50000, ready, up 5d 2h",
        ),
    ]


async def test_chaincode_without_a_certificate(go: Find, peer: Chaincodes) -> None:
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    found = await go()
    assert errors(found) == ["mycc has no certificate"]
    assert found[0].remedy == "run `selvedge ca issue --chaincode mycc`"


async def test_chaincode_that_never_registered(go: Find, home: Home) -> None:
    home.add_chaincode("mycc")
    assert errors(await go()) == ["it never registered with this peer"]


async def test_chaincode_that_has_left(go: Find, home: Home, peer: Chaincodes) -> None:
    home.add_chaincode("mycc")
    peer.known = [Chaincode(name="mycc", launcher=Chaincode.EXTERNAL)]
    assert errors(await go()) == ["it registered before, and is not connected now"]


async def test_chaincode_of_another_ca(go: Find, home: Home, peer: Chaincodes) -> None:
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    foreign = Home(home.path.parent / "other").add_chaincode("mycc")
    shutil.copytree(foreign, home.path / "crypto" / "chaincodes" / "mycc")
    (what,) = errors(await go())
    assert what.startswith("presents a certificate of another root than")


async def test_defect_is_left_to_the_certificates_own_examination(
    go: Find, home: Home, peer: Chaincodes
) -> None:
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    home.add_chaincode("mycc", named="yourcc")
    assert errors(await go()) == []


async def test_listener_that_is_down(go: Find, home: Home, address: str) -> None:
    home.add_chaincode("mycc")
    found = await go(addresses=Addresses(peer=address, chaincode=NOBODY))
    assert errors(found) == ["nothing listens there", "it never registered with this peer"]
    assert found[0].where == f"{NOBODY}, dialled with mycc's certificate"


async def test_shell_in_which_another_chaincode_starts(
    go: Find, home: Home, peer: Chaincodes
) -> None:
    home.add_chaincode("mycc")
    peer.known = [Chaincode(name="mycc", streams=[serving_stream()])]
    assert errors(await go({"CORE_CHAINCODE_ID_NAME": "yourcc:1.0"})) == [
        "in this shell a chaincode registers as yourcc, and not as mycc"
    ]
