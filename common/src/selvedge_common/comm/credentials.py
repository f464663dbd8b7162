"""The TLS side of a server: its pair and the client roots, both replaceable while serving."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from selvedge_common.comm.errors import CertificateError, NoClientRootCertificates
from selvedge_common.comm.settings import SecureServerConfig

# A certificate's issuer, compared by what it says and not by how that is encoded, and its serial
# number.
_Entry: TypeAlias = tuple[x509.Name, int]

_BEGIN = b"-----BEGIN CERTIFICATE-----"


class ServerCredentials:
    """What handshakes use. A change holds for every handshake that starts after it.

    Args:
        config: what is used at first.

    Raises:
        NoClientRootCertificates: a PEM given as client roots holds no certificate.
        CertificateError: the pair, a root or a revocation list cannot be used.
    """

    def __init__(self, config: SecureServerConfig) -> None:
        self.required = config.require_client_certificate
        self.requested = config.request_client_certificate
        self._pair = (config.certificate, config.key)
        self._roots = _index(config.client_root_cas)
        self._parsed = _parse(self._roots)
        self._revoked = _revoked(config.revocation_lists, self._roots)
        self._on_change: Callable[[], None] = lambda: None
        _check_pair(*self._pair)

    @property
    def certificate(self) -> bytes:
        """The server's certificate, PEM."""
        return self._pair[0]

    @property
    def key(self) -> bytes:
        """Its private key, PEM."""
        return self._pair[1]

    @property
    def client_root_cas(self) -> list[bytes]:
        """The client roots in force, one PEM each, in the order they came."""
        return list(self._roots.values())

    def on_change(self, callback: Callable[[], None]) -> None:
        """Have this called after each change. What it raises undoes the change."""
        self._on_change = callback

    def append_client_root_cas(self, roots: Iterable[bytes]) -> None:
        """Add roots. Raises NoClientRootCertificates, CertificateError; then none is added."""
        self._change(roots=self._roots | _index(roots))

    def remove_client_root_cas(self, roots: Iterable[bytes]) -> None:
        """Drop roots; unknown ones do not matter. Raises as append does."""
        gone = _index(roots)
        self._change(roots={der: pem for der, pem in self._roots.items() if der not in gone})

    def set_client_root_cas(self, roots: Iterable[bytes]) -> None:
        """Put these roots in place of all others. Raises as append does."""
        self._change(roots=_index(roots))

    def replace_certificate(self, certificate: bytes, key: bytes) -> None:
        """Serve another pair. Raises CertificateError; then the old one stays."""
        _check_pair(certificate, key)
        self._change(pair=(certificate, key))

    def set_revocation_lists(self, lists: Iterable[bytes]) -> None:
        """Put these lists in place of all others. Raises CertificateError; then those stay."""
        self._change(revoked=_revoked(lists, self._roots))

    def renew(self, config: SecureServerConfig) -> None:
        """Put all of it in place of what there is. Raises as the constructor; then nothing is
        changed."""
        _check_pair(config.certificate, config.key)
        roots = _index(config.client_root_cas)
        self._change(
            pair=(config.certificate, config.key),
            roots=roots,
            revoked=_revoked(config.revocation_lists, roots),
        )

    def trusts(self, chain: Sequence[bytes]) -> bool:
        """Whether a client may stay whose chain was verified in its handshake.

        Args:
            chain: its certificates, DER; none if it showed none.
        """
        if not chain:
            return not self.required
        try:
            certificates = [x509.load_der_x509_certificate(der) for der in chain]
            if any((each.issuer, each.serial_number) in self._revoked for each in certificates):
                return False
            # The root may have been renewed: then its name and key are the same.
            return any(der in self._roots for der in chain) or any(
                _issued(root, each)
                for each in certificates
                for root in self._parsed
                if root.subject == each.issuer
            )
        except ValueError:
            return False  # OpenSSL reads more than is well formed

    def _change(
        self,
        *,
        pair: tuple[bytes, bytes] | None = None,
        roots: dict[bytes, bytes] | None = None,
        revoked: frozenset[_Entry] | None = None,
    ) -> None:
        before = self._pair, self._roots, self._parsed, self._revoked
        self._pair = pair or self._pair
        if roots is not None:
            self._roots, self._parsed = roots, _parse(roots)
        self._revoked = self._revoked if revoked is None else revoked
        try:
            self._on_change()
        except Exception:
            self._pair, self._roots, self._parsed, self._revoked = before
            raise


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


def _revoked(lists: Iterable[bytes], roots: Iterable[bytes]) -> frozenset[_Entry]:
    """The certificates that the lists name. One that is out of date still counts: what was revoked
    stays so."""
    issuers = _parse(roots)
    found: set[_Entry] = set()
    for pem in lists:
        try:
            revocations = x509.load_pem_x509_crl(pem)
            signed = any(
                issuer.subject == revocations.issuer
                and revocations.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
                for issuer in issuers
            )
            entries = {(revocations.issuer, each.serial_number) for each in revocations}
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CertificateError(
                f"A revocation list cannot be read: {error}; give PEM (X509 CRL)."
            ) from error
        if not signed:
            raise CertificateError(
                f"The revocation list of {revocations.issuer.rfc4514_string()} is not signed by any"
                " client root; give the issuer's certificate among the client roots."
            )
        found |= entries
    return frozenset(found)


def _parse(roots: Iterable[bytes]) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(der) for der in roots]


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
