"""Who signed: identities as they travel, and the one that signs for us.

An identity travels as msp.SerializedIdentity: the organisation's MSP id and a certificate in PEM.
Signatures follow Fabric (bccsp/sw/ecdsa.go): ECDSA over SHA-256, DER, with S in the lower half of
the curve's order; a signature in the upper half is refused, since anyone can make one out of the
other and a signed message would have two forms.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from google.protobuf.message import DecodeError

from selvedge_common.msp.certificates import (
    check_extensions,
    pem_of,
    read_certificate,
    subject_of,
)
from selvedge_common.msp.errors import (
    BadSignature,
    MalformedIdentity,
    MSPConfigurationError,
    NotACertificate,
    UnfitCertificate,
)
from selvedge_common.quoting import printable
from selvedge_protos.msp import identities_pb2

_HASH = ec.ECDSA(hashes.SHA256())
MAX_IDENTITY_BYTES = 64 * 1024
"""The longest serialized identity that is read: room for any certificate, none for an attack."""

_CURVES = ("secp256r1", "secp384r1")


class Identity:
    """A certificate of an organisation, not yet validated: `MSP.validate` does that.

    Attributes:
        mspid: the MSP id of the organisation that the identity claims to be of.
        certificate: its X.509 certificate, with an ECDSA P-256 or P-384 key.
        serialized: the marshalled SerializedIdentity, exactly as it came.
        fingerprint: SHA-256 of the certificate's DER form, in hex.
        organizational_units: the OUs of the certificate's subject.
        expires_at: when the certificate itself ends (UTC).
    """

    __slots__ = (
        "_half_order",
        "_public_key",
        "certificate",
        "expires_at",
        "fingerprint",
        "mspid",
        "organizational_units",
        "serialized",
    )

    def __init__(
        self, mspid: str, certificate: x509.Certificate, serialized: bytes | None = None
    ) -> None:
        """Raises UnfitCertificate when the certificate's key or extensions cannot be used."""
        check_extensions(certificate)
        public_key = _public_key(certificate)
        self.mspid = mspid
        self.certificate = certificate
        self.serialized = serialized if serialized is not None else serialize(mspid, certificate)
        self.fingerprint = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        self.organizational_units = tuple(
            str(attribute.value)
            for attribute in certificate.subject.get_attributes_for_oid(
                NameOID.ORGANIZATIONAL_UNIT_NAME
            )
        )
        self.expires_at: datetime = certificate.not_valid_after_utc
        self._public_key = public_key
        self._half_order = public_key.curve.group_order // 2

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return when `signature` (DER) is this identity's over `message`.

        Raises BadSignature otherwise, also for a genuine signature whose S is in the upper half.
        """
        try:
            _, s = decode_dss_signature(signature)
        except ValueError as error:
            raise BadSignature(
                f"The signature of {self} is not a DER encoded ECDSA signature: sign with ECDSA."
            ) from error
        if s > self._half_order:
            raise BadSignature(
                f"The signature of {self} has its S in the upper half of the curve's order,"
                " which Fabric refuses: sign with low S."
            )
        try:
            self._public_key.verify(signature, message, _HASH)
        except InvalidSignature as error:
            raise BadSignature(
                f"The signature of {self} does not match the message: sign exactly the bytes sent,"
                " with the key of the certificate sent."
            ) from error

    def __str__(self) -> str:
        return f"{subject_of(self.certificate)} of {printable(self.mspid)}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self} {self.fingerprint[:16]}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identity):
            return NotImplemented
        return self.mspid == other.mspid and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash((self.mspid, self.fingerprint))


class SigningIdentity(Identity):
    """An identity whose private key is here."""

    __slots__ = ("_private_key",)

    def __init__(
        self, mspid: str, certificate: x509.Certificate, private_key: ec.EllipticCurvePrivateKey
    ) -> None:
        """Raises UnfitCertificate, or MSPConfigurationError when key and certificate differ."""
        super().__init__(mspid, certificate)
        if private_key.public_key() != self._public_key:
            raise MSPConfigurationError(
                f"The private key does not belong to the certificate of {self}:"
                " put the pair that was made together."
            )
        self._private_key = private_key

    def sign(self, message: bytes) -> bytes:
        """Give the signature over `message`: ECDSA, SHA-256, DER, low S."""
        signature = self._private_key.sign(message, _HASH)
        r, s = decode_dss_signature(signature)
        if s <= self._half_order:
            return signature
        return encode_dss_signature(r, self._public_key.curve.group_order - s)


def serialize(mspid: str, certificate: x509.Certificate) -> bytes:
    """Give the marshalled SerializedIdentity of a certificate."""
    return identities_pb2.SerializedIdentity(
        mspid=mspid, id_bytes=pem_of(certificate)
    ).SerializeToString()


def parse_serialized(serialized: bytes) -> identities_pb2.SerializedIdentity:
    """Read the outer form of an identity.

    Raises MalformedIdentity, also for one of more than MAX_IDENTITY_BYTES.
    """
    if len(serialized) > MAX_IDENTITY_BYTES:
        raise MalformedIdentity(
            f"The identity has {len(serialized)} bytes, more than the {MAX_IDENTITY_BYTES} that"
            " are read: send one certificate only."
        )
    try:
        message = identities_pb2.SerializedIdentity.FromString(serialized)
    except DecodeError as error:
        raise MalformedIdentity(
            "The identity is not a marshalled msp.SerializedIdentity:"
            " send the MSP id and the certificate in that message."
        ) from error
    if not message.mspid:
        raise MalformedIdentity("The identity names no MSP id: send the organisation's MSP id.")
    return message


def parse_identity(serialized: bytes) -> Identity:
    """Read an identity without asking whether to trust it.

    Raises MalformedIdentity, NotACertificate or UnfitCertificate.
    """
    message = parse_serialized(serialized)
    return Identity(message.mspid, read_certificate(message.id_bytes), serialized)


def load_signing_identity(folder: Path, mspid: str) -> SigningIdentity:
    """Load the identity of an MSP folder: signcerts/* and the key in keystore/* that fits it.

    Raises MSPConfigurationError naming the file.
    """
    paths = _files(folder / "signcerts")
    if not paths:
        raise MSPConfigurationError(
            f"{folder / 'signcerts'} holds no certificate: enrol, or point to another MSP folder."
        )
    try:
        certificate = read_certificate(paths[0].read_bytes())
        public_key = _public_key(certificate)
    except (OSError, NotACertificate, UnfitCertificate) as error:
        raise MSPConfigurationError(f"{paths[0]} cannot be used as an identity: {error}") from error
    for path in _files(folder / "keystore"):
        private_key = _read_private_key(path)
        if private_key is not None and private_key.public_key() == public_key:
            return SigningIdentity(mspid, certificate, private_key)
    raise MSPConfigurationError(
        f"{folder / 'keystore'} holds no private key for the certificate {paths[0]}:"
        " enrol again, or put the key that was made with it."
    )


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file())


def _read_private_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    except OSError as error:
        raise MSPConfigurationError(f"{path} cannot be read: {error}") from error
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _public_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    try:
        key = certificate.public_key()
    except Exception as error:  # cryptography's exceptions over a stranger's bytes have no base
        raise UnfitCertificate(
            f"The public key of {subject_of(certificate)} cannot be read"
            f" ({printable(str(error))}): use an ECDSA key on P-256 or P-384."
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise UnfitCertificate(
            f"The key of {subject_of(certificate)} is not an ECDSA key on P-256 or P-384:"
            " make one of those and enrol again."
        )
    return key
