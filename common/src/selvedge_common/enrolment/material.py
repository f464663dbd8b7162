"""What lies on disk already: is it good, and if not, why not."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from selvedge_common.enrolment.document import Enrolment, EnrolmentError, fingerprint
from selvedge_common.enrolment.layout import NODE_UNITS, Credential
from selvedge_common.files import make_private_folder, write_atomically


def defect(
    folder: Path, credential: Credential, enrolment: Enrolment | None, now: datetime | None = None
) -> str | None:
    """Why a holder needs this certificate anew; None where what it has is good.

    Args:
        folder: the holder's folder.
        credential: which certificate.
        enrolment: the enrolment file's content, where there is one; it says whose root to trust.
        now: the present in UTC, for tests.
    """
    try:
        certificate = _load(folder, credential)
        key = serialization.load_pem_private_key(
            (folder / credential.key).read_bytes(), password=None
        )
        root = (folder / credential.root).read_bytes()
        tls_root = (folder / (credential.tls_root or credential.root)).read_bytes()
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(root))
    except FileNotFoundError as error:
        return f"there is no {Path(error.filename).name} yet"
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except InvalidSignature:
        return "the certificate is not from the root beside it"
    except (ValueError, TypeError) as error:
        return f"certificate, key or root cannot be read: {error}"
    if certificate.public_key() != key.public_key():
        return "the key is not the certificate's"
    if enrolment and fingerprint(tls_root, str(folder)) != enrolment.tls_root_sha256:
        return "it is from another ca's root"
    if certificate.not_valid_after_utc <= (now or datetime.now(UTC)):
        return f"the certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if credential.names_uri and credential.names_uri not in _uris(certificate):
        return f"the certificate is not for {credential.names_uri}"
    encoded = (credential.certificate, credential.key) if credential.encoded else ()
    if any(not (folder / f"{file}.b64").exists() for file in encoded):
        return "its base64 form is missing"
    return None


def ageing(folder: Path, credential: Credential, now: datetime | None = None) -> str | None:
    """Why a certificate without defect should be renewed nevertheless; None where it need not.

    Args:
        folder, credential: where it lies.
        now: the present in UTC, for tests.
    """
    certificate = _load(folder, credential)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if end - (now or datetime.now(UTC)) < (end - begin) / 3:
        return f"less than a third of its life is left: it expires on {end:%Y-%m-%d %H:%M} UTC"
    return None


def expiry(folder: Path, credential: Credential) -> datetime:
    """When a certificate without defect expires, UTC."""
    return _load(folder, credential).not_valid_after_utc


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh ECDSA key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def store(
    folder: Path,
    credential: Credential,
    key: ec.EllipticCurvePrivateKey,
    certificate: bytes,
    root: bytes,
    enrolment: Enrolment,
) -> datetime:
    """Writes one certificate, its key and its roots; the certificate last, so that it never lacks
    its key.

    Args:
        folder: the holder's folder.
        credential: which certificate, and where its files lie.
        key: its private key.
        certificate: PEM, as the ca answered.
        root: PEM of the root that signed it.
        enrolment: whose TLS root is written where the layout wants it.

    Returns:
        When the certificate expires, UTC.

    Raises:
        EnrolmentError: the ca answered something unfit, or the folder cannot be written.
    """
    until = _check(credential, key, certificate, root, enrolment)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = [(credential.key, pem, 0o600), (credential.root, root, 0o644)]
    if credential.tls_root:
        files.append((credential.tls_root, enrolment.tls_root, 0o644))
    if credential.node_units:
        files.append((credential.node_units, NODE_UNITS.encode(), 0o644))
    if credential.encoded:
        files.append((f"{credential.key}.b64", base64.b64encode(pem), 0o600))
        files.append((f"{credential.certificate}.b64", base64.b64encode(certificate), 0o644))
    files.append((credential.certificate, certificate, 0o644))
    try:
        make_private_folder((folder / credential.key).parent)
        for name, data, mode in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, data, mode)
    except OSError as error:
        raise EnrolmentError(
            f"cannot write certificates into {folder}: {error.strerror}; make it writable for this "
            "user"
        ) from error
    return until


def _check(
    credential: Credential,
    key: ec.EllipticCurvePrivateKey,
    certificate: bytes,
    root: bytes,
    enrolment: Enrolment,
) -> datetime:
    try:
        issued = x509.load_pem_x509_certificate(certificate)
        issued.verify_directly_issued_by(x509.load_pem_x509_certificate(root))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise EnrolmentError(
            f"the ca at {enrolment.ca_address} answered no certificate with its issuer ({error}): "
            "check that it is a Selvedge ca of this version"
        ) from error
    if issued.public_key() != key.public_key():
        raise EnrolmentError(
            f"the ca at {enrolment.ca_address} answered a certificate for another key: check that "
            "it is a Selvedge ca of this version"
        )
    if credential.names_uri and credential.names_uri not in _uris(issued):
        names = ", ".join(_uris(issued)) or "no chaincode"
        raise EnrolmentError(
            f"the token was for {names} instead of {credential.names_uri}: enrol with the file of "
            "the chaincode of that name"
        )
    return issued.not_valid_after_utc


def _load(folder: Path, credential: Credential) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / credential.certificate).read_bytes())


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)
