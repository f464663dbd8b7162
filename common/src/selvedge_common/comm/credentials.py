"""The TLS side of a server: its pair and the client roots, both replaceable while serving."""

import threading
from collections.abc import Iterable
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from selvedge_common.comm.errors import CertificateError, NoClientRootCertificates
from selvedge_common.comm.settings import SecureServerConfig

# grpc.ServerCertificateConfiguration, a name the stubs do not have.
ServerCertificateConfiguration = Any

_BEGIN = b"-----BEGIN CERTIFICATE-----"


class ServerCredentials:
    """What handshakes use. A change holds for every handshake that starts after it.

    gRPC asks for the configuration at each handshake, on a thread of its own; `_fetch` only
    hands over what was prepared here, and nothing when nothing changed.
    """

    def __init__(self, config: SecureServerConfig) -> None:
        self._required = config.require_client_certificate
        self._pair = (config.certificate, config.key)
        self._roots = _index(config.client_root_cas)
        self._lock = threading.Lock()
        self._changed: ServerCertificateConfiguration | None = None
        _check_pair(*self._pair)

    @property
    def certificate(self) -> bytes:
        """The server's certificate, PEM."""
        return self._pair[0]

    @property
    def client_root_cas(self) -> list[bytes]:
        """The client roots in force, one PEM each, in the order they came."""
        return list(self._roots.values())

    def grpc(self) -> grpc.ServerCredentials:
        """The credentials to give to gRPC."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._fetch, require_client_authentication=self._required
        )

    def append_client_root_cas(self, roots: Iterable[bytes]) -> None:
        """Add roots. Raises NoClientRootCertificates, CertificateError; then none is added."""
        self._replace_roots(self._roots | _index(roots))

    def remove_client_root_cas(self, roots: Iterable[bytes]) -> None:
        """Drop roots; unknown ones do not matter. Raises as append does."""
        gone = _index(roots)
        self._replace_roots({der: pem for der, pem in self._roots.items() if der not in gone})

    def set_client_root_cas(self, roots: Iterable[bytes]) -> None:
        """Put these roots in place of all others. Raises as append does."""
        self._replace_roots(_index(roots))

    def replace_certificate(self, certificate: bytes, key: bytes) -> None:
        """Serve another pair. Raises CertificateError; then the old one stays."""
        _check_pair(certificate, key)
        self._pair = (certificate, key)
        self._publish()

    def _replace_roots(self, roots: dict[bytes, bytes]) -> None:
        self._roots = roots
        self._publish()

    def _publish(self) -> None:
        changed = self._configuration()
        with self._lock:
            self._changed = changed

    def _configuration(self) -> ServerCertificateConfiguration:
        certificate, key = self._pair
        # With no roots gRPC trusts none, so a required client certificate is always refused.
        roots = b"".join(self._roots.values()) or None
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=roots
        )

    def _fetch(self) -> Any:
        with self._lock:
            changed, self._changed = self._changed, None
        return changed


def _index(roots: Iterable[bytes]) -> dict[bytes, bytes]:
    """The certificates in `roots` by their DER, each as PEM of its own."""
    found: dict[bytes, bytes] = {}
    for pem in roots:
        if _BEGIN not in pem:
            raise NoClientRootCertificates
        try:
            certificates = x509.load_pem_x509_certificates(pem)
        except ValueError as error:
            raise CertificateError(
                f"A client root certificate cannot be read: {error}; give PEM certificates."
            ) from error
        for certificate in certificates:
            found[certificate.public_bytes(Encoding.DER)] = certificate.public_bytes(Encoding.PEM)
    return found


def _check_pair(certificate: bytes, key: bytes) -> None:
    if not certificate or not key:
        raise CertificateError(
            "TLS is on but the server's certificate or key is missing; give both as PEM."
        )
    try:
        leaf = x509.load_pem_x509_certificates(certificate)[0]
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError(
            "The server's certificate or key cannot be read; "
            "give a PEM certificate and its unencrypted PEM key."
        ) from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        raise CertificateError(
            "The server's key does not belong to its certificate; give the matching pair."
        )
