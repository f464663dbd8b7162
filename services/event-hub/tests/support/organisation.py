"""An organisation whose certificates are made for a test run."""

import copy
import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from selvedge_common.msp import MSP, SigningIdentity

MSPID = "Org1MSP"


def pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Root:
    """A root that issues certificates."""

    def __init__(self, name: str) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = (
            self._builder(self._name, self._key.public_key(), 60)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, name: str, unit: str = "client", minutes: float = 30, uri: str | None = None
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A certificate that ends in so many minutes, or ended as many ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)] if uri else hosts)
        certificate = (
            self._builder(subject, key.public_key(), minutes)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate, key

    def as_identity(self, mspid: str) -> SigningIdentity:
        """The root as if it were a user."""
        return SigningIdentity(mspid, self.certificate, self._key)

    def revoke(self, *certificates: x509.Certificate) -> bytes:
        """A revocation list, in PEM, of certificates that it issued."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now)
            .next_update(now + datetime.timedelta(hours=1))
        )
        for certificate in certificates:
            revoked = x509.RevokedCertificateBuilder()
            revoked = revoked.serial_number(certificate.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(revoked.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, minutes: float
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=2))
            .not_valid_after(now + datetime.timedelta(minutes=minutes))
        )


class Organisation:
    """An organisation with its roots for identities and for TLS."""

    def __init__(self, mspid: str = MSPID) -> None:
        self.mspid = mspid
        self.identities = Root(f"ca.{mspid}")
        self.tls = Root(f"tlsca.{mspid}")
        self.msp = MSP(mspid, [self.identities.certificate])

    def identity(self, name: str, unit: str = "client", minutes: float = 30) -> SigningIdentity:
        certificate, key = self.identities.issue(name, unit, minutes)
        return SigningIdentity(self.mspid, certificate, key)

    def without(self, *identities: SigningIdentity) -> "Organisation":
        """The organisation as a channel knows it that takes these for members no longer."""
        revoked = self.identities.revoke(*(identity.certificate for identity in identities))
        known = copy.copy(self)
        known.msp = MSP(self.mspid, [self.identities.certificate], revocation_lists=[revoked])
        return known

    def tls_pair(self, name: str, uri: str | None = None) -> tuple[bytes, bytes]:
        certificate, key = self.tls.issue(name, uri=uri)
        return certificate.public_bytes(serialization.Encoding.PEM), pem_key(key)

    def write_material(self, folder: Path) -> None:
        """What enrolment leaves in the folder of a service."""
        for name in ("server", "client"):
            certificate, key = self.tls_pair(f"event-hub-{name}")
            _write(folder / "tls" / f"{name}.crt", certificate)
            _write(folder / "tls" / f"{name}.key", key)
        _write(folder / "tls" / "ca.crt", self.tls.pem)
        signer, signing_key = self.identities.issue("event-hub", "peer")
        _write(folder / "msp/signcerts/cert.pem", signer.public_bytes(serialization.Encoding.PEM))
        _write(folder / "msp/keystore/key.pem", pem_key(signing_key))
        _write(folder / "msp/cacerts/ca.pem", self.identities.pem)
        _write(folder / "msp/tlscacerts/tlsca.pem", self.tls.pem)


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
