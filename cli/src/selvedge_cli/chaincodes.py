"""What a peer knows of its chaincodes, and packages for them: signed requests to it."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from selvedge_cli.connection import Connection
from selvedge_cli.errors import CallRefused, CommandError, call_failed
from selvedge_common.signed_requests import sign_request
from selvedge_protos.selvedge.chaincode.v1 import chaincodes_pb2, chaincodes_pb2_grpc


async def list_chaincodes(connection: Connection, within: float) -> list[chaincodes_pb2.Chaincode]:
    """Every chaincode that the peer knows, as it tells them.

    Args:
        within: seconds for the answer, here and below.

    Raises:
        CommandError: the peer cannot be reached, or refused; here and below.
    """
    answer = await _ask(connection, "List", chaincodes_pb2.ListRequest(), within)
    return list(answer.chaincodes)


async def install(
    connection: Connection, package: bytes, within: float
) -> chaincodes_pb2.InstallResponse:
    """Give the peer a package; says by which id and name it has it."""
    request = chaincodes_pb2.InstallRequest(package=package)
    answer: chaincodes_pb2.InstallResponse = await _ask(connection, "Install", request, within)
    return answer


async def remove(connection: Connection, package_id: str, within: float) -> None:
    """Take a package from the peer."""
    request = chaincodes_pb2.RemoveRequest(package_id=package_id)
    await _ask(connection, "Remove", request, within)


async def _ask(connection: Connection, method: str, request: Message, within: float) -> Any:
    address = connection.settings.addresses.peer
    stub = chaincodes_pb2_grpc.ChaincodesStub(connection.channel(address))
    envelope = sign_request(request, connection.user.signer)
    try:
        return await getattr(stub, method)(envelope, timeout=within)
    except grpc.aio.AioRpcError as error:
        raise _failed(error, address) from error


def _failed(error: grpc.aio.AioRpcError, address: str) -> CommandError:
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return CallRefused(
            f"the peer at {address} does not tell of its chaincodes: it is another one than "
            "Selvedge's, or an older one",
            error.code(),
        )
    return call_failed(error, "the peer", address)
