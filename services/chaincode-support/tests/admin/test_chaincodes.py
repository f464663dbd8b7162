"""Packages over the wire: listed for members, installed and removed by administrators."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from launching import BOUNDS, CCAAS, CONNECTION, PAUSES, drop, id_of, package
from testchannel import Organisation

from chaincode_support.admin.chaincodes import Chaincodes, add_chaincodes
from chaincode_support.admin.signed_requests import signed_requests
from chaincode_support.chaincode.known_names import KnownNames
from chaincode_support.chaincode.registry import Registry
from chaincode_support.launchers.external import ExternalLauncher
from chaincode_support.launchers.launchers import Launchers, LaunchSettings
from chaincode_support.launchers.packages import Packages
from chaincode_support.launchers.waiting import Waiting
from selvedge_common import comm
from selvedge_common.msp import SigningIdentity
from selvedge_common.protoutil.wire import signed_envelope, timestamp_of
from selvedge_protos.common import common_pb2
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import (
    Chaincode,
    InstallRequest,
    ListRequest,
    RemoveRequest,
)
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2_grpc import ChaincodesStub

PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED


class Client:
    """Signs requests as one or another, and sends them."""

    def __init__(self, stub: Any, organisation: Organisation) -> None:
        self._stub = stub
        self.admin = organisation.issue("admin", "admin")
        self.member = organisation.issue("client", "user1")

    async def ask(
        self, method: str, request: Message | bytes, signer: SigningIdentity | None = None
    ) -> Any:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        header = common_pb2.ChannelHeader(
            type=common_pb2.PEER_ADMIN_OPERATION, timestamp=timestamp_of(datetime.now(UTC))
        )
        envelope = signed_envelope(header, data, signer or self.admin)
        return await getattr(self._stub, method)(envelope, timeout=10)

    async def refused(
        self, method: str, request: Message | bytes, signer: SigningIdentity | None = None
    ) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await self.ask(method, request, signer)
        return refusal.value.code(), refusal.value.details() or ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "packages"


@pytest.fixture
async def launchers(folder: Path) -> AsyncIterator[Launchers]:
    """Launchers that launch nothing: packages are only kept."""
    registry = Registry(KnownNames())
    waiting = Waiting(registry, 1.0, 1)
    launchers = Launchers(
        Packages(folder, BOUNDS, {}),
        ExternalLauncher(registry, waiting, "localhost:7052"),
        never,
        registry,
        waiting,
        LaunchSettings(3600.0, PAUSES, 1.0),
    )
    await launchers.start(never)
    yield launchers
    await launchers.stop()


def put_in_the_way(folder: Path) -> None:
    """Have a file where the folder should be."""
    folder.rmdir()
    folder.write_text("in the way")


def never(*_: Any) -> NoReturn:
    raise AssertionError("nothing is called here")


@pytest.fixture
async def client(launchers: Launchers) -> AsyncIterator[Client]:
    organisation = Organisation("Org1MSP")
    server = comm.GRPCServer("127.0.0.1:0", comm.ServerConfig())
    requests = signed_requests(organisation.msp, max_bytes=1 << 20)
    registered = [Chaincode(name="other", version="3.0")]
    add_chaincodes(server, Chaincodes(requests, launchers, lambda: registered))
    await server.start()
    async with comm.channel(server.address, root_cas=None) as channel:
        yield Client(ChaincodesStub(channel), organisation)
    await server.stop(0)


async def names(client: Client) -> list[tuple[str, str]]:
    answer = await client.ask("List", ListRequest(), client.member)
    return [(chaincode.name, chaincode.package_id) for chaincode in answer.chaincodes]


async def test_a_package_is_installed_listed_and_removed(client: Client) -> None:
    data = package("mycc_1.0")
    answer = await client.ask("Install", InstallRequest(package=data))
    assert (answer.package_id, answer.name) == (id_of("mycc_1.0", data), "mycc")
    assert await names(client) == [("mycc", answer.package_id), ("other", "")]
    await client.ask("Remove", RemoveRequest(package_id=answer.package_id))
    assert await names(client) == [("other", "")]


async def test_a_member_who_is_no_administrator_only_lists(client: Client) -> None:
    code, details = await client.refused(
        "Install", InstallRequest(package=package("mycc_1.0")), client.member
    )
    assert (code, "is no administrator" in details) == (PERMISSION_DENIED, True)
    code, _ = await client.refused("Remove", RemoveRequest(package_id="a:b"), client.member)
    assert code is PERMISSION_DENIED
    stranger = Organisation("OtherMSP").issue("admin", "mallory")
    code, _ = await client.refused("List", ListRequest(), stranger)
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert await names(client) == [("other", "")]


@pytest.mark.parametrize(
    ("data", "code", "sentence"),
    [
        (b"rubbish", grpc.StatusCode.INVALID_ARGUMENT, "the package is no gzipped tar"),
        (
            package("mycc", type="process", command=["sh"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "put its folder into chaincode.packages on the peer's disk",
        ),
        (bytes(100_000), grpc.StatusCode.RESOURCE_EXHAUSTED, "chaincode.limits.packageBytes"),
    ],
)
async def test_what_cannot_be_used_is_refused_by_its_cause(
    client: Client, data: bytes, code: grpc.StatusCode, sentence: str
) -> None:
    refusal = await client.refused("Install", InstallRequest(package=data))
    assert (refusal[0], sentence in refusal[1]) == (code, True), refusal


async def test_what_was_not_installed_is_not_removed(
    client: Client, launchers: Launchers, folder: Path
) -> None:
    code, details = await client.refused("Remove", RemoveRequest(package_id="mycc:abc"))
    assert (code, "there is no package mycc:abc here" in details) == (
        grpc.StatusCode.NOT_FOUND,
        True,
    )
    drop(folder, "mycc", CCAAS, CONNECTION)
    await launchers.look()
    ((_, package_id), _) = await names(client)
    code, details = await client.refused("Remove", RemoveRequest(package_id=package_id))
    assert (code, "remove that folder" in details) == (grpc.StatusCode.FAILED_PRECONDITION, True)


async def test_a_request_that_is_none_is_refused(client: Client) -> None:
    code, details = await client.refused("Install", b"\xff")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "is not a marshalled selvedge.chaincode.v1.InstallRequest" in details


async def test_a_folder_that_takes_no_files_is_said(
    client: Client, launchers: Launchers, folder: Path
) -> None:
    put_in_the_way(folder)
    code, details = await client.refused("Install", InstallRequest(package=package("mycc_1.0")))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "the peer cannot keep the package in its folder chaincode.packages: " in details
