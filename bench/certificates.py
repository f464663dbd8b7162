"""Certificates for a server and a client of one authority, good for a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = timedelta(days=1)


def write_certificates(folder: Path) -> None:
    """Write ca.crt, and the .crt and .key of server and client.

    The server is 127.0.0.1.
    """
    authority = ec.generate_private_key(ec.SECP256R1())
    _write_certificate(folder / "ca.crt", _certificate("ca", authority.public_key(), authority))
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        _write_certificate(folder / f"{name}.crt", _certificate(name, key.public_key(), authority))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def _certificate(
    name: str, key: ec.EllipticCurvePublicKey, issuer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now = datetime.now(UTC)
    is_authority = name == "ca"
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named("ca"))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if not is_authority:
        address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        use = {
            "server": ExtendedKeyUsageOID.SERVER_AUTH,
            "client": ExtendedKeyUsageOID.CLIENT_AUTH,
        }[name]
        builder = builder.add_extension(address, critical=False).add_extension(
            x509.ExtendedKeyUsage([use]), critical=False
        )
    return builder.sign(issuer, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bench {name}")])


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
