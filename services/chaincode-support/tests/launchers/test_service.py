"""Chaincode as a service: real servers that are dialled, over TLS that is right or wrong."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from launching import StartLaunching
from prometheus_client import REGISTRY
from testchannel import Organisation

from chaincode_support.chaincode.errors import LaunchTimeout
from chaincode_support.launchers.errors import LaunchFailed
from chaincode_support.launchers.supervisor import Pauses
from selvedge_common import comm
from selvedge_protos.peer.chaincode_shim_pb2_grpc import (
    ChaincodeServicer,
    add_ChaincodeServicer_to_server,
)

from .chaincodeserver import ChaincodeServer

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Serve = Callable[..., Awaitable[ChaincodeServer]]

CCAAS = {"type": "ccaas", "label": "mycc_1.5"}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts chaincodes that serve."""
    servers: list[ChaincodeServer] = []

    async def begin(
        chaincode_id: str = "mycc:1.5",
        credentials: grpc.ServerCredentials | None = None,
        port: int = 0,
    ) -> ChaincodeServer:
        server = ChaincodeServer(chaincode_id, credentials)
        server.port = port
        servers.append(server)
        await server.start()
        return server

    yield begin
    for server in servers:
        await server.stop()


@pytest.fixture(scope="module")
def organisation() -> Organisation:
    return Organisation("Org1MSP")


def mutual(organisation: Organisation, **server: Any) -> grpc.ServerCredentials:
    """A chaincode's credentials, which ask for a client certificate of the same root."""
    certificate, key = organisation.issue_tls("mycc", **server)
    return grpc.ssl_server_credentials([(key, certificate)], organisation.root, True)


def connection(
    address: str, organisation: Organisation, client: Organisation | None = None
) -> dict[str, Any]:
    certificate, key = (client or organisation).issue_tls("peer0")
    return {
        "address": address,
        "tls_required": True,
        "client_auth_required": True,
        "root_cert": organisation.root.decode(),
        "client_cert": certificate.decode(),
        "client_key": key.decode(),
    }


def connects(success: str) -> float:
    sample = REGISTRY.get_sample_value(
        "chaincode_connects_total", {"chaincode": "mycc", "success": success}
    )
    return sample or 0.0


@pytest.mark.parametrize("chaincode_id", ["mycc:1.5", "mycc", "mycc_1.5", "{id}"])
async def test_it_is_dialled_once_and_registers_as_its_package_or_its_name(
    start: StartLaunching, serve: Serve, organisation: Organisation, chaincode_id: str
) -> None:
    before = connects("true")
    launching = await start()
    # The id is known only once the package is there, as with Fabric.
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    await launching.drop("mycc", CCAAS, connection(f"localhost:{port}", organisation))
    (described,) = launching.launchers.describe(())
    server = ChaincodeServer(chaincode_id.format(id=described.package_id), mutual(organisation))
    server.port = port
    await server.start()
    try:
        answers = await asyncio.gather(
            *(launching.peer.execute("mycc", f"t{number}") for number in range(5))
        )
        assert {answer.response.payload for answer in answers} == {b"1"}
        assert answers[0].version == "1.5"
        assert launching.peer.writes() == {"count": b"1"}
        assert server.streams == 1
        assert launching.state("mycc") == f"connected to localhost:{port}"
        (stream,) = launching.peer.registry.replicas("mycc")
        assert stream.peer == f"dns:localhost:{port}"
        assert connects("true") == before + 1
    finally:
        await launching.launchers.stop()
        await server.stop()


async def test_it_is_dialled_again_when_it_comes_back(
    start: StartLaunching, serve: Serve, organisation: Organisation, eventually: Eventually
) -> None:
    launching = await start()
    server = await serve(credentials=mutual(organisation))
    await launching.drop("mycc", CCAAS, connection(server.address, organisation))
    await launching.peer.execute("mycc", "t1")
    await server.stop()
    await eventually(lambda: launching.peer.registry.next("mycc") is None)
    failed = connects("false")
    early = asyncio.create_task(launching.peer.execute("mycc", "t2"))
    await eventually(lambda: connects("false") > failed)
    await server.start()
    assert (await early).response.payload == b"1"


async def test_a_name_that_is_not_its_own_is_refused_and_who_waits_is_told_at_once(
    start: StartLaunching, serve: Serve, organisation: Organisation, eventually: Eventually
) -> None:
    launching = await start(startup_timeout=3600.0)
    server = await serve("other:1.0", mutual(organisation))
    await launching.drop("mycc", CCAAS, connection(server.address, organisation))
    refused = (
        f"was dialled at {server.address} and refused by this peer: REGISTER names chaincode "
        "other:1.0, but what the peer dialled is the package of chaincode mycc"
    )
    with pytest.raises(LaunchFailed, match=f"^chaincode mycc {refused}"):
        await launching.peer.execute("mycc")
    await eventually(lambda: f"s to dial it again, since it {refused}" in launching.state("mycc"))
    assert not launching.peer.registry.known("other")


async def test_who_calls_after_a_refusal_waits_for_the_next_attempt(
    start: StartLaunching, serve: Serve, eventually: Eventually
) -> None:
    launching = await start(startup_timeout=3600.0, pauses=Pauses(first=0.01, longest=3600.0))
    server = await serve("other:1.0")
    await launching.drop("mycc", CCAAS, {"address": server.address})
    for _ in range(3):
        with pytest.raises(LaunchFailed, match="refused by this peer: REGISTER names chaincode ot"):
            await launching.peer.execute("mycc")
    await server.stop()
    right = await serve("mycc:1.5", port=server.port)
    assert (await launching.peer.execute("mycc")).response.payload == b"1"
    assert right.streams == 1


async def test_the_certificate_of_another_chaincode_is_refused(
    start: StartLaunching, serve: Serve, organisation: Organisation
) -> None:
    launching = await start(startup_timeout=3600.0)
    certificate, key = organisation.issue_tls("other", "selvedge://chaincode/other")
    server = await serve(
        credentials=grpc.ssl_server_credentials([(key, certificate)], organisation.root, True)
    )
    await launching.drop("mycc", CCAAS, connection(server.address, organisation))
    with pytest.raises(
        LaunchFailed,
        match=r"refused by this peer: the chaincode that serves there has the certificate of "
        r"selvedge://chaincode/other, not of mycc",
    ):
        await launching.peer.execute("mycc")


async def test_a_certificate_that_is_not_shown_again_is_passing_trouble(
    start: StartLaunching,
    serve: Serve,
    organisation: Organisation,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    async def reset(*_: object) -> list[str]:
        raise ConnectionResetError("reset by peer")

    launching = await start()
    server = await serve(credentials=mutual(organisation))
    await launching.drop("mycc", CCAAS, connection(server.address, organisation))
    with monkeypatch.context() as patched:
        patched.setattr(comm, "server_uris", reset)
        early = asyncio.create_task(launching.peer.execute("mycc"))
        await eventually(lambda: "was not shown a second time" in launching.state("mycc"))
    assert (await early).response.payload == b"1"


async def test_its_own_certificate_is_taken(
    start: StartLaunching, serve: Serve, organisation: Organisation
) -> None:
    launching = await start()
    certificate, key = organisation.issue_tls("mycc", "selvedge://chaincode/mycc")
    server = await serve(
        credentials=grpc.ssl_server_credentials([(key, certificate)], organisation.root, True)
    )
    await launching.drop("mycc", CCAAS, connection(server.address, organisation))
    assert (await launching.peer.execute("mycc")).response.payload == b"1"


async def assert_not_reached(launching: Any, address: str, cause: str) -> None:
    with pytest.raises(
        LaunchTimeout,
        match=r"^chaincode mycc did not register within chaincode\.startuptimeout \(0\.5 s\); "
        rf"it could not be reached at {address}: {cause}.* \(package mycc_1\.5:[0-9a-f]{{8}}\)$",
    ) as told:
        await launching.peer.execute("mycc")
    assert str(told.value).count(address) == 1
    assert len(str(told.value)) < 300


async def test_nobody_there_is_said_with_address_and_cause(
    start: StartLaunching, organisation: Organisation
) -> None:
    launching = await start(startup_timeout=0.5)
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    await launching.drop("mycc", CCAAS, connection(address, organisation))
    await assert_not_reached(launching, address, "nothing listens there: start the chaincode")
    await launching.drop("mycc", CCAAS, {"address": "no.such.host.invalid:1"})
    await assert_not_reached(launching, "no.such.host.invalid:1", "there is no such host")


async def test_one_that_takes_connections_and_says_nothing_is_given_up(
    start: StartLaunching,
) -> None:
    launching = await start(startup_timeout=0.5)
    with socket.create_server(("localhost", 0)) as silent:
        address = f"localhost:{silent.getsockname()[1]}"
        await launching.drop("mycc", CCAAS, {"address": address, "dial_timeout": "50ms"})
        await assert_not_reached(
            launching, address, "there was no connection within its dial_timeout"
        )


@pytest.mark.parametrize(
    ("server", "changes", "cause"),
    [
        (
            {"valid": timedelta(hours=-1)},
            {},
            "the chaincode's certificate has expired: renew it there",
        ),
        ({"host": "elsewhere"}, {}, "the chaincode's certificate is for another host than that"),
        ({}, {"root_cert": "other"}, "the chaincode's certificate is of another root: put its own"),
        ({}, {"client_auth_required": False}, "it closed the connection: it may want TLS"),
        ({}, {"client_cert": "other"}, "it closed the connection: .* another client certificate"),
        ({}, {"tls_required": False}, "it closed the connection: it may want TLS"),
        (None, {}, "what listens there does not speak TLS: turn it on there, or set tls_required"),
    ],
)
async def test_tls_that_is_wrong_on_either_side_is_said(
    start: StartLaunching,
    serve: Serve,
    organisation: Organisation,
    server: dict[str, Any] | None,
    changes: dict[str, Any],
    cause: str,
) -> None:
    launching = await start(startup_timeout=0.5)
    other = Organisation("OtherMSP")
    served = await serve(credentials=mutual(organisation, **server) if server is not None else None)
    wanted = connection(
        served.address, organisation, other if changes.pop("client_cert", None) else None
    )
    if "root_cert" in changes:
        changes = {"root_cert": other.root.decode()}
    await launching.drop("mycc", CCAAS, {**wanted, **changes})
    await assert_not_reached(launching, served.address, cause)
    assert served.streams == 0


async def test_the_peer_s_own_pair_and_root_serve_where_the_package_has_none(
    start: StartLaunching, serve: Serve, organisation: Organisation, tmp_path: Path
) -> None:
    server = await serve(credentials=mutual(organisation))
    own = {"address": server.address, "tls_required": True, "client_auth_required": True}
    tls = tmp_path / "tls"
    launching = await start(tls=tls)
    await launching.drop("mycc", CCAAS, own)
    with pytest.raises(
        LaunchFailed, match=r"mycc was not dialled: this peer's own TLS material is"
    ):
        await launching.peer.execute("mycc")
    certificate, key = organisation.issue_tls("peer0")
    tls.mkdir()
    for name, pem in (
        ("ca.crt", organisation.root),
        ("client.crt", certificate),
        ("client.key", key),
    ):
        (tls / name).write_bytes(pem)
    assert (await launching.peer.execute("mycc")).response.payload == b"1"


async def test_what_is_no_chaincode_is_said(start: StartLaunching) -> None:
    launching = await start(startup_timeout=0.5)
    # The peer itself: it serves, but not that.
    await launching.drop("mycc", CCAAS, {"address": launching.peer.address})
    with pytest.raises(
        LaunchTimeout, match=r"lost the connection to localhost:\d+ \(UNIMPLEMENTED"
    ):
        await launching.peer.execute("mycc")


SAID = "220 internal-host.example banner"


async def test_what_a_foreign_server_says_is_for_the_log_alone(
    start: StartLaunching, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 418 " + SAID.encode() + b"\r\n\r\n")
        writer.close()

    launching = await start(startup_timeout=0.5)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await launching.drop("mycc", CCAAS, {"address": address})
        await assert_not_reached(launching, address, "UNAVAILABLE; the peer's log has more")
    assert "418" in caplog.text


class Refusing(ChaincodeServicer):
    """Ends every stream with a sentence of its own."""

    async def Connect(  # type: ignore[override]  # the stubs are those of a synchronous server
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await context.abort(grpc.StatusCode.INTERNAL, SAID)


async def test_what_a_server_ends_the_stream_with_is_for_the_log_alone(
    start: StartLaunching, caplog: pytest.LogCaptureFixture
) -> None:
    launching = await start(startup_timeout=0.5)
    server: Any = grpc.aio.server()
    add_ChaincodeServicer_to_server(Refusing(), server)
    address = f"localhost:{server.add_insecure_port('localhost:0')}"
    await server.start()
    await launching.drop("mycc", CCAAS, {"address": address})
    with pytest.raises(LaunchTimeout) as told:
        await launching.peer.execute("mycc")
    assert f"lost the connection to {address} (INTERNAL; the peer's log has more)" in str(
        told.value
    )
    assert SAID not in launching.state("mycc")
    assert SAID in caplog.text
    await server.stop(0)


class Silent(ChaincodeServicer):
    """Takes every stream, and never registers on it."""

    async def Connect(  # type: ignore[override]  # the stubs are those of a synchronous server
        self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        async for _ in request_iterator:
            pass


async def test_one_that_never_registers_is_told_of_at_once(start: StartLaunching) -> None:
    launching = await start(startup_timeout=3600.0, stream={"register_timeout": 0.05})
    server: Any = grpc.aio.server()
    add_ChaincodeServicer_to_server(Silent(), server)
    address = f"localhost:{server.add_insecure_port('localhost:0')}"
    await server.start()
    await launching.drop("mycc", CCAAS, {"address": address})
    with pytest.raises(
        LaunchFailed,
        match=rf"^chaincode mycc was dialled at {address} and refused by this peer: no REGISTER "
        r"came within chaincode\.registerTimeout \(0\.05 s\)",
    ):
        await launching.peer.execute("mycc")
    await server.stop(0)


async def test_running_transactions_finish_when_its_package_is_taken_away(
    start: StartLaunching, serve: Serve, eventually: Eventually
) -> None:
    launching = await start()
    server = await serve()
    place = await launching.drop("mycc", CCAAS, {"address": server.address})
    await launching.peer.execute("mycc", "t1")
    server.counter.may_go.clear()
    server.counter.asked.clear()
    running = asyncio.create_task(launching.peer.execute("mycc", "t2"))
    await server.counter.asked.wait()
    place.rename(place.parent / ".hidden")
    leaving = await launching.launchers.look()
    assert server.streams == 1
    server.counter.may_go.set()
    assert (await running).response.payload == b"1"
    await asyncio.wait(leaving)
    await eventually(lambda: server.streams == 0)


async def test_another_address_is_dialled_once_the_package_changes(
    start: StartLaunching, serve: Serve, eventually: Eventually
) -> None:
    launching = await start()
    blue, green = await serve(), await serve()
    await launching.drop("mycc", CCAAS, {"address": blue.address})
    await launching.peer.execute("mycc", "t1")
    await launching.drop("mycc", {**CCAAS, "version": "2.0"}, {"address": green.address})
    await eventually(lambda: (blue.streams, green.streams) == (0, 1))
    assert (await launching.peer.execute("mycc", "t2")).version == "2.0"
