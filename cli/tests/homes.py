"""Homes with certificates in them, good ones and ones that are wrong in one way."""

from __future__ import annotations

import base64
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cli.tests.fake_services import Pair
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from selvedge_cli.addresses import Addresses
from selvedge_cli.options import Settings
from selvedge_common.enrolment import layout
from selvedge_common.enrolment.layout import Credential
from selvedge_common.msp import MSP

YEAR = timedelta(days=365)
MINUTE = timedelta(minutes=1)
NOW = datetime.now(UTC)
Span = tuple[datetime, datetime]
GOOD = NOW - 5 * MINUTE, NOW + YEAR
EXPIRED = NOW - YEAR, NOW - MINUTE
EARLY = NOW + 60 * MINUTE, NOW + YEAR
AGEING = NOW - YEAR, NOW + YEAR / 10


class Root:
    """An authority that issues whatever it is asked for."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.certificate = (
            self._builder(self._name, self._key, (NOW - 2 * YEAR, NOW + 10 * YEAR))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return Pair(self.certificate, self._key).certificate_pem

    def issue(
        self,
        name: str,
        *,
        unit: str = "",
        names: Sequence[str] = ("localhost",),
        uri: str | None = None,
        span: Span = GOOD,
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
        subject = x509.Name([*units, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, span).add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        known_as: list[x509.GeneralName] = [_general(name) for name in names]
        if uri is not None:
            known_as = [x509.UniformResourceIdentifier(uri)]
        if known_as:
            builder = builder.add_extension(x509.SubjectAlternativeName(known_as), critical=False)
        return Pair(builder.sign(self._key, hashes.SHA256()), key)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, span: Span
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(span[0])
            .not_valid_after(span[1])
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )


@dataclass
class Home:
    """A home and the authority that its certificates are of.

    Attributes:
        path: the folder.
        tls: the root of connections.
        identities: the root of identities.
    """

    path: Path
    tls: Root = field(default_factory=lambda: Root("tls"))
    identities: Root = field(default_factory=lambda: Root("identities"))

    @property
    def msp(self) -> MSP:
        return MSP("Org1MSP", [self.identities.certificate])

    def add_user(self, name: str, unit: str = "client", span: Span = GOOD) -> Path:
        """A user's folder, with whose certificates are valid in the span."""
        folder = self.path / "crypto" / "users" / name
        msp, tls = layout.user("user")
        identity = self.identities.issue(name, unit=unit, span=span)
        self._write(folder, msp, identity, self.identities.pem)
        self._write(folder, tls, self.tls.issue(name, span=span), self.tls.pem)
        return folder

    def add_chaincode(self, name: str, *, named: str | None = None, span: Span = GOOD) -> Path:
        """A chaincode's folder; its certificate is for `named`, if that is another name."""
        folder = self.path / "crypto" / "chaincodes" / name
        uri = f"selvedge://chaincode/{named or name}"
        (credential,) = layout.chaincode(name)
        self._write(folder, credential, self.tls.issue(name, uri=uri, span=span), self.tls.pem)
        return folder

    def settings(self, addresses: Addresses, user: str = "user1") -> Settings:
        return Settings(self.path, addresses, user, "mychannel", as_json=False)

    def _write(self, folder: Path, credential: Credential, pair: Pair, root: bytes) -> None:
        """Write what an enrolment would."""
        files = {
            credential.certificate: pair.certificate_pem,
            credential.key: pair.key_pem,
            credential.root: root,
        }
        if credential.tls_root is not None:
            files[credential.tls_root] = self.tls.pem
        if credential.encoded:
            for name in (credential.certificate, credential.key):
                files[f"{name}.b64"] = base64.b64encode(files[name])
        for name, content in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(stat.S_IRUSR | stat.S_IWUSR)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
