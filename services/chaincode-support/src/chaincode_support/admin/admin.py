"""`protos.Admin`: the peer's status and log levels, for its administrators.

Follows core/admin/admin.go of Fabric 1.2 to 1.4, whose `peer node status` and `peer logging` speak
to it. A module is a logger of ours, and a level set for one holds for those below it.
"""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty

from selvedge_common import logs
from selvedge_common.comm import GRPCServer, StatusError
from selvedge_common.signed_requests import SignedRequest, SignedRequests
from selvedge_protos.common.common_pb2 import Envelope
from selvedge_protos.peer.admin_pb2 import (
    AdminOperation,
    LogLevelRequest,
    LogLevelResponse,
    ServerStatus,
)
from selvedge_protos.peer.admin_pb2_grpc import AdminServicer, add_AdminServicer_to_server

log = logs.get_logger("admin")

Context = grpc.aio.ServicerContext[Any, Any]


class Admin(AdminServicer):
    """Serves `protos.Admin`. The log levels of when it is made are those to revert to.

    Every method raises StatusError: what `SignedRequests.read` and `SignedRequest.parse` raise, and
    INVALID_ARGUMENT for a request that lacks what it is about.
    """

    def __init__(self, requests: SignedRequests) -> None:
        self._requests = requests
        self._spec_at_start = logs.get_spec()

    async def GetStatus(  # noqa: N802  # here and below: gRPC's name of the method
        self, request: Envelope, context: Context
    ) -> ServerStatus:
        """Say that the server runs, as whatever answers does."""
        self._open(request)
        return ServerStatus(status=ServerStatus.STARTED)

    async def StartServer(  # noqa: N802
        self, request: Envelope, context: Context
    ) -> ServerStatus:
        """Say the same: it was started before it could be asked to."""
        return await self.GetStatus(request, context)

    async def GetModuleLogLevel(  # noqa: N802
        self, request: Envelope, context: Context
    ) -> LogLevelResponse:
        """Say which level holds for a logger: its own, or that of the nearest above it."""
        _, operation = self._open(request)
        module = _log_request(operation).log_module
        return LogLevelResponse(log_module=module, log_level=logs.get_level(module).upper())

    async def SetModuleLogLevel(  # noqa: N802
        self, request: Envelope, context: Context
    ) -> LogLevelResponse:
        """Put a level in force for a logger, or for several with commas between them."""
        opened, operation = self._open(request)
        wanted = _log_request(operation)
        try:
            logs.set_spec(f"{logs.get_spec()}:{wanted.log_module}={wanted.log_level}")
        except logs.LogSpecError as error:
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        _tell_levels(opened)
        return LogLevelResponse(
            log_module=wanted.log_module, log_level=wanted.log_level.strip().upper()
        )

    async def RevertLogLevels(  # noqa: N802
        self, request: Envelope, context: Context
    ) -> Empty:
        """Put the levels in force with which the server started."""
        opened, _ = self._open(request)
        logs.set_spec(self._spec_at_start)
        _tell_levels(opened)
        return Empty()

    def _open(self, request: Envelope) -> tuple[SignedRequest, AdminOperation]:
        opened = self._requests.read(request, admin=True)
        return opened, opened.parse(AdminOperation)


def add_admin(server: GRPCServer, admin: Admin) -> None:
    """Serve `admin` on `server`."""
    # GRPCServer has the two methods of grpc.aio.Server that generated code calls.
    add_AdminServicer_to_server(admin, server)  # type: ignore[arg-type]


def _log_request(operation: AdminOperation) -> LogLevelRequest:
    if not operation.HasField("logReq"):
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "the request names no module: put a LogLevelRequest into its AdminOperation",
        )
    return operation.logReq


def _tell_levels(request: SignedRequest) -> None:
    log.info("log levels changed", spec=logs.get_spec(), by=str(request.signer))
