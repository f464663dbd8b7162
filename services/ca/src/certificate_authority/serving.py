"""The ca as a process: open the volume, serve, drain."""

from __future__ import annotations

from certificate_authority import volume
from certificate_authority.config import Config
from certificate_authority.rate import Rate
from certificate_authority.service import CertificateAuthorityService
from selvedge_common.comm import GRPCServer, SecureServerConfig, ServerConfig
from selvedge_common.logs import get_logger
from selvedge_common.process import Shutdown
from selvedge_protos.selvedge.ca.v1.certificate_authority_pb2_grpc import (
    add_CertificateAuthorityServicer_to_server,
)

_log = get_logger("ca")


async def serve(config: Config, shutdown: Shutdown) -> None:
    """Serves until the process is asked to end.

    Raises:
        AuthorityError: the volume cannot be used.
        selvedge_common.comm.CommError: an address cannot be bound.
    """
    made = volume.make(config)
    certificate, key = volume.server_pair(config, made)
    limits = config.ca.limits
    server = GRPCServer(
        config.ca.listen_address,
        ServerConfig(
            # Whoever enrols has no certificate yet: its token is what proves its right.
            SecureServerConfig(use_tls=True, certificate=certificate, key=key),
            max_receive_bytes=limits.max_request_bytes,
            max_send_bytes=limits.max_request_bytes,
            max_concurrent_streams=limits.max_concurrent_streams,
        ),
    )
    rate = Rate(limits.requests_per_second, limits.burst)
    service = CertificateAuthorityService(made.authority, made.tokens, made.enrolments, rate)
    add_CertificateAuthorityServicer_to_server(service, server)
    await server.start()
    _log.info(
        "serving",
        address=server.address,
        members_use=config.ca.address,
        volume=str(config.ca.file_system_path),
        tls_root_sha256=made.authority.tls_root.sha256,
    )
    await shutdown.wait()
    await server.stop(limits.stop_grace)
    made.tokens.close()
