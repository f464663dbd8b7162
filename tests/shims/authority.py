"""Certificates that the ca does not issue, signed by its roots: its volume is here to be read."""

import base64
import datetime
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from selvedge_common.msp import SigningIdentity

_ATTRIBUTES = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
_LIFE = datetime.timedelta(days=1)


def user_with_attributes(ca: Path, name: str, attributes: dict[str, str]) -> SigningIdentity:
    """A user whose certificate holds attributes, as Fabric's own CA issues them.

    Args:
        ca: the volume of the certificate authority.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    extension = x509.UnrecognizedExtension(_ATTRIBUTES, json.dumps({"attrs": attributes}).encode())
    certificate = _sign(ca / "roots" / "identity-root", name, key, extension)
    return SigningIdentity("Org1MSP", certificate, key)


def write_server_pair(ca: Path, folder: Path) -> None:
    """The pair of a chaincode that serves on this host: `server.crt` and `server.key`, PEM, and
    both as base64 of that."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = _sign(ca / "roots" / "tls-root", "chaincode", key, names, usage)
    for name, pem in {
        "server.crt": certificate.public_bytes(Encoding.PEM),
        "server.key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }.items():
        (folder / name).write_bytes(pem)
        (folder / f"{name}.b64").write_bytes(base64.b64encode(pem))


def _sign(
    root: Path, name: str, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType
) -> x509.Certificate:
    issuer = x509.load_pem_x509_certificate(root.with_suffix(".crt").read_bytes())
    issuer_key = load_pem_private_key(root.with_suffix(".key").read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    issuer_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Org1MSP"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "client"),
        x509.NameAttribute(NameOID.COMMON_NAME, name),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_before_utc + _LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
            critical=False,
        )
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
