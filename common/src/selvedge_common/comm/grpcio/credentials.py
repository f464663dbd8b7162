"""A listener's TLS for gRPC core."""

import threading
from typing import Any

import grpc

from selvedge_common.comm.credentials import ServerCredentials

# grpc.ServerCertificateConfiguration, a name the stubs do not have.
ServerCertificateConfiguration = Any


class GrpcioCredentials:
    """Hands changes of the credentials to gRPC.

    gRPC asks for the configuration at each handshake, on a thread of its own; `_fetch` only
    hands over what was prepared here, and nothing when nothing changed.
    """

    def __init__(self, credentials: ServerCredentials) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()
        self._changed: ServerCertificateConfiguration | None = None
        credentials.on_change(self._publish)

    def grpc(self) -> grpc.ServerCredentials:
        """The credentials to give to gRPC."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._fetch,
            require_client_authentication=self._credentials.required,
        )

    def _publish(self) -> None:
        changed = self._configuration()
        with self._lock:
            self._changed = changed

    def _configuration(self) -> ServerCertificateConfiguration:
        pair = (self._credentials.key, self._credentials.certificate)
        # With no roots gRPC trusts none, so a required client certificate is always refused.
        roots = b"".join(self._credentials.client_root_cas) or None
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)

    def _fetch(self) -> Any:
        with self._lock:
            changed, self._changed = self._changed, None
        return changed
