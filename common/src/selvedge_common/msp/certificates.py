"""Read certificates as Fabric's clients send them, and build their chains.

The chain is built by own code over `cryptography`'s primitives. Its `x509.verification` is made
for TLS: it wants server or client purposes, subject alternative names and the web's certificate
profile, none of which Fabric's identity certificates have; bent to accept them it would check less
than the code below says in plain sight. What is checked follows RFC 5280 section 6 as far as
Fabric's MSP (msp/mspimpl.go, msp/mspimplsetup.go) relies on it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from selvedge_common.msp.errors import NotACertificate, UnfitCertificate, UntrustedIdentity
from selvedge_common.quoting import printable

# Old Go clients write PEM whose type is empty: "-----BEGIN -----".
_PEM_TYPES = (b"CERTIFICATE", b"X509 CERTIFICATE", b"")
_LAZY_FIELDS = (
    "version",
    "serial_number",
    "not_valid_before_utc",
    "not_valid_after_utc",
    "signature",
    "signature_algorithm_oid",
    "tbs_certificate_bytes",
)
_SUBJECT_CHARACTERS = 200  # of a subject in a sentence

_T = TypeVar("_T", bound=x509.ExtensionType)

# Critical extensions that are understood here; any other critical one refuses the certificate.
_UNDERSTOOD = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
}


def read_certificate(pem: bytes) -> x509.Certificate:
    """Give the first certificate in `pem`; a PEM block without a type is taken for one.

    Raises NotACertificate.
    """
    for der in _der_blocks(pem):
        return _from_der(der)
    raise NotACertificate(
        "The identity holds no PEM certificate: send the X.509 certificate in PEM form."
    )


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """Give every certificate in a PEM bundle, maybe none. Raises NotACertificate."""
    return [_from_der(der) for der in _der_blocks(pem)]


def pem_of(certificate: x509.Certificate) -> bytes:
    """Give the certificate in PEM form."""
    return certificate.public_bytes(Encoding.PEM)


def subject_of(certificate: x509.Certificate) -> str:
    """Name a certificate in a sentence: its subject in RFC 4514 form."""
    return _name_of(certificate.subject) or "(empty subject)"


def check_extensions(certificate: x509.Certificate) -> None:
    """Read all extensions once, so that later reads cannot fail.

    Raises UnfitCertificate when one does not parse or is critical and not understood.
    """
    try:
        for extension in certificate.extensions:
            if extension.critical and extension.oid not in _UNDERSTOOD:
                raise UnfitCertificate(
                    f"The certificate of {subject_of(certificate)} has the critical extension"
                    f" {extension.oid.dotted_string}, which is not understood here:"
                    " issue one without it."
                )
    except UnfitCertificate:
        raise
    except Exception as error:  # see _from_der
        raise UnfitCertificate(
            f"The certificate of {subject_of(certificate)} has an unreadable extension"
            f" ({printable(str(error))}): issue a new one."
        ) from error


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether basicConstraints makes the certificate a CA's."""
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def may_sign_certificates(certificate: x509.Certificate) -> bool:
    """Tell whether the certificate is a CA's whose keyUsage, if it has one, allows signing."""
    usage = _extension(certificate, x509.KeyUsage)
    return is_authority(certificate) and (usage is None or usage.key_cert_sign)


def subject_key_identifier(certificate: x509.Certificate) -> bytes | None:
    """Give the subject key identifier, if the certificate has one."""
    identifier = _extension(certificate, x509.SubjectKeyIdentifier)
    return identifier.digest if identifier is not None else None


def build_chain(
    certificate: x509.Certificate,
    roots: Sequence[x509.Certificate],
    intermediates: Sequence[x509.Certificate],
) -> list[x509.Certificate]:
    """Give the certificates from `certificate` up to one of `roots`.

    Checked are names and key identifiers, signatures, CA flags, key usage and path lengths.
    Validity in time is the caller's, which has `validity` for it. Raises UntrustedIdentity.
    """
    chain = _extend([certificate], roots, intermediates)
    if chain is None:
        raise UntrustedIdentity(
            f"The certificate of {subject_of(certificate)} was issued by"
            f" {_name_of(certificate.issuer) or '(empty issuer)'} and no chain of"
            " signatures leads from it to a root of its organisation:"
            " enrol with the organisation's own authority."
        )
    return chain


def validity(chain: Sequence[x509.Certificate]) -> tuple[datetime, datetime]:
    """Give the time in which every certificate of the chain is valid (UTC, both inclusive)."""
    return (
        max(link.not_valid_before_utc for link in chain),
        min(link.not_valid_after_utc for link in chain),
    )


def _extend(
    chain: list[x509.Certificate],
    roots: Sequence[x509.Certificate],
    intermediates: Sequence[x509.Certificate],
) -> list[x509.Certificate] | None:
    last = chain[-1]
    for root in roots:
        if _issued(root, last, below=len(chain) - 1):
            return [*chain, root]
    for intermediate in intermediates:
        # A certificate is in a chain once at most, which also bounds the depth.
        if intermediate not in chain and _issued(intermediate, last, below=len(chain) - 1):
            found = _extend([*chain, intermediate], roots, intermediates)
            if found is not None:
                return found
    return None


def _issued(issuer: x509.Certificate, certificate: x509.Certificate, below: int) -> bool:
    """Tell whether `issuer` rightly issued; `below` counts the CAs between it and the leaf."""
    if issuer.subject != certificate.issuer or not may_sign_certificates(issuer):
        return False
    constraints = _extension(issuer, x509.BasicConstraints)
    allowed = constraints.path_length if constraints is not None else None
    if allowed is not None and below > allowed:
        return False
    authority = _extension(certificate, x509.AuthorityKeyIdentifier)
    claimed = authority.key_identifier if authority is not None else None
    actual = subject_key_identifier(issuer)
    if claimed is not None and actual is not None and claimed != actual:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # besides a signature that does not verify, see _from_der
        return False
    return True


def _extension(certificate: x509.Certificate, kind: type[_T]) -> _T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _name_of(name: x509.Name) -> str:
    return printable(name.rfc4514_string(), _SUBJECT_CHARACTERS)


def _der_blocks(pem: bytes) -> Iterator[bytes]:
    """The contents of the PEM blocks that may be certificates; each byte is looked at once."""
    at = pem.find(b"-----BEGIN ")
    while at >= 0:
        begun = at + len(b"-----BEGIN ")
        dashes = pem.find(b"-----", begun)
        if dashes < 0:
            return
        kind, body = pem[begun:dashes], dashes + len(b"-----")
        end = pem.find(b"-----", body)
        if kind in _PEM_TYPES and pem.startswith(b"-----END %s-----" % kind, end):
            yield _base64(pem[body:end])
        # What ended this block, if it was one, may be the beginning of another.
        at = pem.find(b"-----BEGIN ", dashes)


def _base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as error:
        raise NotACertificate(
            f"The PEM certificate is not valid base64 ({error}): send it unchanged."
        ) from error


def _from_der(der: bytes) -> x509.Certificate:
    """Read a certificate and, once, every field that is only parsed when it is first read.

    `cryptography` does not say what it raises over a stranger's bytes, and its exceptions have no
    base in common: ValueError, TypeError (a subject with a BIT STRING), UnsupportedAlgorithm,
    InvalidVersion were seen. So all are caught where nothing but `cryptography` runs.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        for name in (certificate.subject, certificate.issuer):
            name.rfc4514_string()
        for read in _LAZY_FIELDS:
            getattr(certificate, read)
        return certificate
    except Exception as error:
        raise NotACertificate(
            "The identity's PEM block is not an X.509 certificate"
            f" ({printable(str(error))}): send a certificate."
        ) from error
