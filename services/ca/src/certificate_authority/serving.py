"""The ca as a process: open the volume, serve, drain."""

from __future__ import annotations

import asyncio
import functools
from contextlib import AsyncExitStack
from importlib import metadata
from typing import TYPE_CHECKING

from certificate_authority import volume
from certificate_authority.config import Config
from certificate_authority.errors import AuthorityError
from certificate_authority.rate import RateByClient
from certificate_authority.service import CertificateAuthorityService
from certificate_authority.tokens import TokenStore
from selvedge_common.comm import Bounds, GRPCServer, SecureServerConfig, server_config
from selvedge_common.logs import get_logger
from selvedge_common.process import Shutdown
from selvedge_protos.selvedge.ca.v1.certificate_authority_pb2_grpc import (
    add_CertificateAuthorityServicer_to_server,
)

if TYPE_CHECKING:
    from selvedge_common.operations import OperationsServer

_log = get_logger("ca")


async def serve(config: Config, shutdown: Shutdown) -> None:
    """Serves until the process is asked to end.

    Raises:
        AuthorityError: the volume cannot be used.
        selvedge_common.comm.CommError: the gRPC address cannot be bound.
        selvedge_common.operations.OperationsError: the operations address cannot be bound.
    """
    made = volume.make(config)
    certificate, key = volume.server_pair(config, made)
    limits = config.ca.limits
    server = GRPCServer(
        config.ca.listen_address,
        server_config(
            config.transport,
            # Whoever enrols has no certificate yet: its token is what proves its right.
            SecureServerConfig(use_tls=True, certificate=certificate, key=key),
            Bounds(
                max_receive_bytes=limits.max_request_bytes,
                max_send_bytes=limits.max_request_bytes,
                receive_setting="ca.limits.maxRequestBytes",
                send_setting="ca.limits.maxRequestBytes",
                max_concurrent_streams=limits.max_concurrent_streams,
            ),
        ),
    )
    failures = RateByClient(limits.requests_per_second, limits.burst)
    service = CertificateAuthorityService(made.authority, made.tokens, made.enrolments, failures)
    # GRPCServer has the two methods of grpc.aio.Server that generated code calls.
    add_CertificateAuthorityServicer_to_server(service, server)  # type: ignore[arg-type]
    async with AsyncExitStack() as stack:
        stack.callback(made.tokens.close)
        stack.push_async_callback(server.stop, limits.stop_grace)
        await server.start()
        # Loading the HTTP server takes longer than all the rest: members are served meanwhile.
        operations = await asyncio.to_thread(_operations, config, made, shutdown)
        stack.push_async_callback(operations.stop)
        await operations.start()
        _log.info(
            "serving",
            address=server.address,
            transport=server.transport,
            operations=operations.address,
            members_use=config.ca.address,
            volume=str(config.ca.file_system_path),
            tls_root_sha256=made.authority.tls_root.sha256,
        )
        await shutdown.wait()


async def check_tokens(tokens: TokenStore) -> None:
    """Raises `AuthorityError` where the token store cannot be read: a health check.

    In a thread, for it waits its turn behind those who write.
    """
    await asyncio.to_thread(tokens.check)


def _operations(config: Config, made: volume.Volume, shutdown: Shutdown) -> OperationsServer:
    from selvedge_common.operations import OperationsServer, OperationsTLS

    tls = config.ca.file_system_path / "tls"
    root = tls / "ca.crt"

    def serving() -> None:
        if shutdown.is_set():
            raise AuthorityError("the ca is stopping")

    return OperationsServer(
        config.operations.listen_address,
        OperationsTLS(tls / "server.crt", tls / "server.key", [root])
        if config.operations.tls.enabled
        else None,
        {
            "serving": serving,
            "roots": made.authority.check,
            "tokens": functools.partial(check_tokens, made.tokens),
        },
        metadata.version("selvedge-ca"),
    )
