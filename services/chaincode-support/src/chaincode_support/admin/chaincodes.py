"""`selvedge.chaincode.v1.Chaincodes`: what the peer knows of its chaincodes, and their packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio

from chaincode_support.launchers.errors import (
    BrokenPackage,
    DroppedPackage,
    PackageTooLarge,
    UnknownPackage,
)
from chaincode_support.launchers.launchers import Launchers
from selvedge_common.comm import GRPCServer, StatusError
from selvedge_common.signed_requests import SignedRequests
from selvedge_protos.common.common_pb2 import Envelope
from selvedge_protos.selvedge.chaincode.v1 import chaincodes_pb2
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2_grpc import (
    ChaincodesServicer,
    add_ChaincodesServicer_to_server,
)

Context = grpc.aio.ServicerContext[Any, Any]

_CODES = {
    PackageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BrokenPackage: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownPackage: grpc.StatusCode.NOT_FOUND,
    DroppedPackage: grpc.StatusCode.FAILED_PRECONDITION,
}


class Chaincodes(ChaincodesServicer):
    """Serves packages to administrators, and the list of chaincodes to members.

    Every method raises StatusError: what `SignedRequests.read` and `SignedRequest.parse` raise.

    Args:
        requests: opens the signed envelopes.
        launchers: have the packages.
        registered: the chaincodes that registered, as far as their streams tell.
    """

    def __init__(
        self,
        requests: SignedRequests,
        launchers: Launchers,
        registered: Callable[[], list[chaincodes_pb2.Chaincode]],
    ) -> None:
        self._requests = requests
        self._launchers = launchers
        self._registered = registered

    async def List(  # noqa: N802  # here and below: gRPC's name of the method
        self, request: Envelope, context: Context
    ) -> chaincodes_pb2.ListResponse:
        """All that the peer knows: registered now or before, or packaged."""
        self._requests.read(request, admin=False).parse(chaincodes_pb2.ListRequest)
        return chaincodes_pb2.ListResponse(chaincodes=self._launchers.describe(self._registered()))

    async def Install(  # noqa: N802
        self, request: Envelope, context: Context
    ) -> chaincodes_pb2.InstallResponse:
        """Keep a package; RESOURCE_EXHAUSTED for one beyond a bound, INVALID_ARGUMENT for one that
        cannot be used."""
        wanted = self._requests.read(request, admin=True).parse(chaincodes_pb2.InstallRequest)
        with _refused("cannot keep the package"):
            package = await self._launchers.install(wanted.package)
        return chaincodes_pb2.InstallResponse(package_id=package.id, name=package.name)

    async def Remove(  # noqa: N802
        self, request: Envelope, context: Context
    ) -> chaincodes_pb2.RemoveResponse:
        """Take a package out; NOT_FOUND, or FAILED_PRECONDITION for one that was not installed."""
        wanted = self._requests.read(request, admin=True).parse(chaincodes_pb2.RemoveRequest)
        with _refused("cannot remove the package"):
            await self._launchers.remove(wanted.package_id)
        return chaincodes_pb2.RemoveResponse()


def add_chaincodes(server: GRPCServer, chaincodes: Chaincodes) -> None:
    """Serve `chaincodes` on `server`."""
    # GRPCServer has the two methods of grpc.aio.Server that generated code calls.
    add_ChaincodesServicer_to_server(chaincodes, server)  # type: ignore[arg-type]


@contextmanager
def _refused(what: str) -> Iterator[None]:
    try:
        yield
    except (BrokenPackage, UnknownPackage, DroppedPackage) as error:
        raise StatusError(_CODES[type(error)], str(error)) from error
    except OSError as error:
        raise StatusError(
            grpc.StatusCode.UNAVAILABLE,
            f"the peer {what} in its folder chaincode.packages: {error.strerror}; make room there, "
            "or make it writable, and try again",
        ) from error
