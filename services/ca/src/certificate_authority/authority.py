"""Two roots and what they sign.

The TLS root signs what connections are made with, the identity root what transactions are signed
with, as Fabric keeps its TLS CA apart from an organisation's CA. A request contributes its public
key and nothing else: subject, names, usages and lifetime are the authority's decision.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from certificate_authority.errors import AuthorityError, InvalidRequest
from certificate_authority.profiles import Holder, Profile, Signer
from selvedge_common.files import make_private_folder, sync_folder, write_atomically

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_COMMON_NAMES = {Signer.TLS: "Selvedge TLS root", Signer.IDENTITY: "Selvedge identity root"}

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present, in UTC: the clock where no test brings its own."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Root:
    """A self-signed certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def sha256(self) -> str:
        """SHA-256 of the certificate's DER in lower-case hex."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True)
class Issued:
    """A certificate that was just signed, and the root that did it."""

    certificate: x509.Certificate
    root: Root

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def public_key_of(csr: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request whose sender has shown to hold the private one.

    Args:
        csr: PKCS #10 in PEM.

    Raises:
        InvalidRequest: not readable, not signed with its own key, or not an ECDSA key on P-256 or
            P-384, the keys that identities verify with here and in Fabric (bccsp).
    """
    try:
        request = x509.load_pem_x509_csr(csr)
        key = request.public_key()
        signed = request.is_signature_valid
    except Exception:  # cryptography's exceptions over a stranger's bytes have no base in common
        raise InvalidRequest(
            "bad_request", "the signing request is not PKCS #10 in PEM: make one with an ECDSA key"
        ) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1
    ):
        raise InvalidRequest(
            "bad_key", "the signing request's key is not accepted: use ECDSA on P-256 or P-384"
        )
    if not signed:
        raise InvalidRequest(
            "bad_request",
            "the signing request's own signature does not verify: sign it with its key",
        )
    return key


class Authority:
    """Signs certificates with the roots of one volume.

    Args:
        roots: both roots.
        organization: the subject's O, by custom the MSP id.
        namespace: the Kubernetes namespace for server names.
        lifetimes: how long a certificate lives, by profile name.
        backdate: how far in the past certificates begin, for clocks that are behind.
        clock: the present in UTC.
    """

    def __init__(
        self,
        roots: Mapping[Signer, Root],
        *,
        organization: str,
        namespace: str,
        lifetimes: Mapping[str, timedelta],
        backdate: timedelta,
        clock: Clock = utc_now,
    ) -> None:
        self.tls_root = roots[Signer.TLS]
        self.identity_root = roots[Signer.IDENTITY]
        self.organization = organization
        self._roots = roots
        self._namespace = namespace
        self._lifetimes = lifetimes
        self._backdate = backdate
        self._clock = clock

    def check(self) -> None:
        """Raises `AuthorityError` where a root has expired: a health check."""
        for signer, root in self._roots.items():
            until = root.certificate.not_valid_after_utc
            if until <= self._clock():
                raise AuthorityError(
                    f"the {signer.value} root expired on {until:%Y-%m-%d}: make new roots in an "
                    "empty volume and enrol every member again"
                )

    def issue(
        self,
        key: ec.EllipticCurvePublicKey,
        profile: Profile,
        name: str,
        hosts: tuple[str, ...] = (),
    ) -> Issued:
        """Signs a certificate for a public key.

        Args:
            key: from `public_key_of`.
            profile: decides root, usages, names and lifetime.
            name: the holder's common name, already checked against the profile.
            hosts: host names and IP addresses that the holder serves under, beside those that its
                name gives.

        Raises:
            AuthorityError: the root has expired, or a host is none.
        """
        self.check()
        root = self._roots[profile.signer]
        now = self._clock()
        # Never longer than its root: verifiers would refuse the chain before the leaf's own end.
        until = min(now + self._lifetimes[profile.name], root.certificate.not_valid_after_utc)
        subject = _subject(name, self.organization, profile.unit)
        builder = (
            _builder(subject, root.certificate.subject, key, now - self._backdate, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(_issuer_key_identifier(root), critical=False)
        )
        if profile.usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(profile.usages), critical=False)
        names = profile.alternative_names(Holder(name, self._namespace, hosts))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Issued(_sign_low_s(builder, root.key), root)


def open_roots(folder: Path) -> dict[Signer, Root]:
    """The roots that lie in a folder.

    Raises:
        AuthorityError: there are none, or a file is not what its name says.
    """
    return {signer: _load_root(folder, signer) for signer in Signer}


def open_or_make_roots(
    folder: Path,
    *,
    organization: str,
    lifetime: timedelta,
    backdate: timedelta,
    clock: Clock = utc_now,
) -> dict[Signer, Root]:
    """The roots that lie in a folder, made first where it does not exist.

    Two processes may begin at once: the folder appears whole or not at all, and the second takes
    what the first made.

    Raises:
        AuthorityError: the folder cannot be written or holds something else.
    """
    if folder.exists():
        return open_roots(folder)
    begun = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        make_private_folder(begun)
        for signer in Signer:
            root = _make_root(signer, organization, lifetime, backdate, clock())
            key = root.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            write_atomically(begun / f"{signer.value}-root.key", key, mode=0o600)
            write_atomically(begun / f"{signer.value}-root.crt", root.pem)
        os.rename(begun, folder)
        # Certificates are signed with these next: no power cut may bring other roots.
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(begun, ignore_errors=True)
        if not folder.is_dir():
            raise AuthorityError(
                f"cannot make the roots in {folder}: {error.strerror}; give the ca a writable "
                "volume"
            ) from error
    return open_roots(folder)


def _load_root(folder: Path, signer: Signer) -> Root:
    certificate_file = folder / f"{signer.value}-root.crt"
    key_file = folder / f"{signer.value}-root.key"
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except OSError as error:
        remedy = (
            "restore the folder from its backup"
            if folder.exists()
            else "run `certificate-authority init` or `serve` on this volume first"
        )
        raise AuthorityError(
            f"there are no roots in {folder} ({error.strerror}: {error.filename}): {remedy}"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AuthorityError(
            f"{certificate_file} and {key_file} are not a certificate and a key in PEM: restore "
            "them, or remove the folder to begin with new roots"
        ) from error
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
    ):
        raise AuthorityError(
            f"{key_file} is not the ECDSA key of {certificate_file}: restore the pair"
        )
    return Root(certificate, key)


def _make_root(
    signer: Signer, organization: str, lifetime: timedelta, backdate: timedelta, now: datetime
) -> Root:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(_COMMON_NAMES[signer], organization, None)
    builder = (
        _builder(subject, subject, key.public_key(), now - backdate, now + lifetime)
        # No intermediates are ever signed, so the path below a root has length 0.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return Root(_sign_low_s(builder, key), key)


def _subject(name: str, organization: str, unit: str | None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)]
    if unit is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_key_identifier(root: Root) -> x509.AuthorityKeyIdentifier:
    identifier = root.certificate.extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier
    ).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _sign_low_s(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Signs until S lies in the lower half: every second try.

    Fabric's MSP rewrites certificates whose S is high (msp/cert.go), after which their bytes, and
    an identity's identifier, differ from what its holder sends.
    """
    while True:
        certificate = builder.sign(key, hashes.SHA256())
        _, s = decode_dss_signature(certificate.signature)
        if s <= _P256_ORDER // 2:
            return certificate
