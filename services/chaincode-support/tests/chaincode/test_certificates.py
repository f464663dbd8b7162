"""Where chaincode may do without a certificate, and what one that it presents still proves."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import pytest
from rawshim import Peer, RawShim, StartPeer, register
from testchannel import Organisation

from selvedge_common import comm
from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage

M = ChaincodeMessage
Connect = Callable[..., RawShim]


@pytest.fixture(scope="module")
def authority() -> Organisation:
    return Organisation("TLS")


@pytest.fixture
async def peer(start_peer: StartPeer, authority: Organisation) -> Peer:
    """One that asks for certificates and requires none, which native can."""
    certificate, key = authority.issue_tls("server")
    secure = comm.SecureServerConfig(
        use_tls=True,
        certificate=certificate,
        key=key,
        client_root_cas=(authority.root,),
        request_client_certificate=True,
    )
    return await start_peer(
        server=comm.ServerConfig(secure=secure, transport="native"),
        check_certificate_name=True,
        certificate_optional=True,
    )


@pytest.fixture
async def connect(peer: Peer, authority: Organisation) -> AsyncIterator[Connect]:
    """Opens a stream, with a certificate that holds these URIs, or with none."""
    channels: list[grpc.aio.Channel] = []

    def open_stream(*uris: str, certified: bool = True) -> RawShim:
        certificate, key = authority.issue_tls("chaincode", *uris) if certified else (None, None)
        channels.append(
            comm.channel(
                f"localhost:{peer.address.rpartition(':')[2]}",
                root_cas=authority.root,
                certificate=certificate,
                key=key,
            )
        )
        return RawShim(channels[-1])

    yield open_stream
    for channel in channels:
        await channel.close(None)


async def test_one_without_a_certificate_serves(peer: Peer, connect: Connect) -> None:
    shim = connect(certified=False)
    await shim.register("mycc:1.0")
    running = asyncio.create_task(peer.execute("mycc"))
    await shim.complete(await shim.hear())
    assert (await running).response.status == 200


@pytest.mark.parametrize("first_certified", [True, False])
async def test_one_without_a_certificate_is_nobody_s_replica(
    peer: Peer, connect: Connect, first_certified: bool
) -> None:
    uri = "selvedge://chaincode/mycc"
    first = connect(uri) if first_certified else connect(certified=False)
    second = connect(certified=False) if first_certified else connect(uri)
    await first.register("mycc:1.0")
    await second.say(register("mycc:1.0"))
    code, details = await second.status()
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert "replicas need mutual TLS, each with a certificate of this name" in details
    running = asyncio.create_task(peer.execute("mycc"))
    await first.complete(await first.hear())
    assert (await running).response.status == 200


async def test_a_certificate_that_is_presented_must_be_of_the_name(
    peer: Peer, connect: Connect
) -> None:
    other = connect("selvedge://chaincode/other")
    await other.say(register("mycc:1.0"))
    code, details = await other.status()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "REGISTER names chaincode mycc, but the client certificate is for" in details
    user = connect()
    await user.say(register("mycc:1.0"))
    code, details = await user.status()
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "REGISTER names chaincode mycc, but the client certificate is for" in details
    assert "which is no chaincode" in details
    assert peer.registry.names() == []
