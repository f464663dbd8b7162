"""Organisations and TLS authorities made up at run time."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from selvedge_common.comm import SecureServerConfig
from selvedge_common.msp import MSP, SigningIdentity

DAY = timedelta(days=1)


def name_of(common_name: str, *units: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        + [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
    )


class Authority:
    """A CA: a self-signed one, or one below `parent`."""

    def __init__(
        self,
        name: str,
        parent: "Authority | None" = None,
        *,
        path_length: int | None = None,
        is_ca: bool = True,
        may_sign: bool = True,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name_of(name)
        usage = dict.fromkeys(
            ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"],
            False,
        ) | {"key_agreement": False, "encipher_only": False, "decipher_only": False}
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(is_ca, path_length if is_ca else None), True),
            (x509.KeyUsage(**usage, key_cert_sign=may_sign, crl_sign=may_sign), True),
            (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
        ]
        self.certificate = (parent or self).certify(
            self.name, self.key.public_key(), extensions, end=datetime.now(UTC) + 10 * DAY
        )

    def certify(
        self,
        subject: x509.Name,
        public_key: Any,
        extensions: list[tuple[x509.ExtensionType, bool]],
        *,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start or now - DAY)
            .not_valid_after(end or now + DAY)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())


class Organisation:
    """An MSP id, a root, and as many identities as a test wants."""

    def __init__(self, mspid: str) -> None:
        self.mspid = mspid
        self.root = Authority(f"ca.{mspid}")
        self.msp = MSP(mspid, [self.root.certificate])

    def issue(
        self,
        name: str,
        *units: str,
        by: Authority | None = None,
        curve: ec.EllipticCurve | None = None,
        extensions: list[tuple[x509.ExtensionType, bool]] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> SigningIdentity:
        key = ec.generate_private_key(curve or ec.SECP256R1())
        issuer = by or self.root
        aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        certificate = issuer.certify(
            name_of(name, *units),
            key.public_key(),
            [(aki, False), *(extensions or [])],
            start=start,
            end=end,
        )
        return SigningIdentity(self.mspid, certificate, key)


@pytest.fixture(scope="session")
def make_organisation() -> Callable[[str], Organisation]:
    return Organisation


@pytest.fixture(scope="session")
def org1() -> Organisation:
    return Organisation("Org1MSP")


@pytest.fixture(scope="session")
def org2() -> Organisation:
    return Organisation("Org2MSP")


@pytest.fixture(scope="session")
def peer(org1: Organisation) -> SigningIdentity:
    return org1.issue("peer0", "peer")


@pytest.fixture(scope="session")
def client(org1: Organisation) -> SigningIdentity:
    return org1.issue("user1", "client")


@dataclass(frozen=True)
class Pair:
    certificate: bytes
    key: bytes


class TLSAuthority:
    """A TLS root that issues pairs for 127.0.0.1 and localhost; all PEM."""

    def __init__(self, name: str) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.root = self.renewed()

    def renewed(self) -> bytes:
        """A new certificate of the same root: same name, same key."""
        return (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    def mutual_tls(self) -> SecureServerConfig:
        """TLS of a server of this authority, whose clients need a certificate of it."""
        pair = self.issue("server")
        return SecureServerConfig(
            use_tls=True,
            certificate=pair.certificate,
            key=pair.key,
            client_root_cas=(self.root,),
            require_client_certificate=True,
        )

    def revoke(self, *pairs: Pair) -> bytes:
        """A revocation list that names these, PEM."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now)
            .next_update(now + timedelta(hours=1))
        )
        for pair in pairs:
            certificate = x509.load_pem_x509_certificate(pair.certificate)
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(now)
                .build()
            )
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, *also: x509.GeneralName) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *also]
        )
        certificate = (
            self._builder(subject, key.public_key())
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Pair(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
        )


@pytest.fixture(scope="session")
def make_tls_authority() -> Callable[[str], TLSAuthority]:
    return TLSAuthority
