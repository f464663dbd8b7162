"""Identities that the ca does not issue, signed by its root, whose key is here to be read."""

import datetime
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from selvedge_common.msp import SigningIdentity

_ATTRIBUTES = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
_LIFE = datetime.timedelta(days=1)


def user_with_attributes(ca: Path, name: str, attributes: dict[str, str]) -> SigningIdentity:
    """A user whose certificate holds attributes, as Fabric's own CA issues them.

    Args:
        ca: the volume of the certificate authority.
    """
    root = ca / "roots" / "identity-root"
    issuer = x509.load_pem_x509_certificate(root.with_suffix(".crt").read_bytes())
    issuer_key = load_pem_private_key(root.with_suffix(".key").read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    issuer_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Org1MSP"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "client"),
        x509.NameAttribute(NameOID.COMMON_NAME, name),
    ]
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
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
        .add_extension(
            x509.UnrecognizedExtension(_ATTRIBUTES, json.dumps({"attrs": attributes}).encode()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    return SigningIdentity("Org1MSP", certificate, key)
