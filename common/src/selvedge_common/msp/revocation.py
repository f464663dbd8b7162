"""Revocation lists of an organisation's authorities (X.509 CRLs)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from selvedge_common.msp.errors import MSPConfigurationError


class RevocationLists:
    """The lists an MSP was given; one counts only for the CA that signed it."""

    def __init__(self, mspid: str, lists: Sequence[bytes]) -> None:
        """Read `lists`, each in PEM or DER. Raises MSPConfigurationError."""
        self._lists = [_read(mspid, data) for data in lists]

    def revoked(self, chain: Sequence[x509.Certificate]) -> bool:
        """Tell whether a certificate of the chain is revoked by the CA that follows it.

        As in Fabric, a revocation counts at once, whatever the list's dates say.
        """
        return any(
            crl.issuer == issuer.subject
            and crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
            and _signed_by(crl, issuer)
            for certificate, issuer in itertools.pairwise(chain)
            for crl in self._lists
        )


def _read(mspid: str, data: bytes) -> x509.CertificateRevocationList:
    load = x509.load_pem_x509_crl if b"-----BEGIN" in data else x509.load_der_x509_crl
    try:
        return load(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MSPConfigurationError(
            f"The MSP {mspid!r} was given a revocation list that cannot be read ({error}):"
            " give an X.509 CRL."
        ) from error


def _signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
