"""Identities: their bytes, their signatures, their folders."""

import base64
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from selvedge_common.msp import (
    MSP,
    BadSignature,
    IdentityError,
    MalformedIdentity,
    MSPConfigurationError,
    NotACertificate,
    UnfitCertificate,
    identify,
    load_signing_identity,
    parse_identity,
    serialize,
)
from selvedge_common.msp.certificates import read_certificate
from selvedge_common.msp.identity import MAX_IDENTITY_BYTES
from selvedge_protos.msp import identities_pb2


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_a_signature_is_low_s_and_plain_ecdsa_over_sha256(org1: Any, curve: Any) -> None:
    signer = org1.issue("user", "client", curve=curve)
    for number in range(16):
        message = bytes([number])
        signature = signer.sign(message)
        _, s = decode_dss_signature(signature)
        assert s <= curve.group_order // 2
        signer.certificate.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
        parse_identity(signer.serialized).verify(message, signature)


def test_high_s_is_refused_although_it_is_mathematically_valid(client: Any) -> None:
    r, s = decode_dss_signature(client.sign(b"message"))
    high = encode_dss_signature(r, ec.SECP256R1().group_order - s)
    client.certificate.public_key().verify(high, b"message", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(BadSignature, match="upper half"):
        client.verify(b"message", high)


def test_a_signature_over_another_message_is_refused(client: Any) -> None:
    with pytest.raises(BadSignature, match="does not match the message"):
        client.verify(b"another", client.sign(b"message"))


@given(signature=st.binary(max_size=80))
def test_random_signatures_are_refused(client: Any, signature: bytes) -> None:
    with pytest.raises(BadSignature):
        client.verify(b"message", signature)


def test_zero_is_no_signature(client: Any) -> None:
    with pytest.raises(BadSignature):
        client.verify(b"message", encode_dss_signature(0, 0))


def test_what_travels_is_mspid_and_pem(client: Any) -> None:
    message = identities_pb2.SerializedIdentity.FromString(client.serialized)
    assert message.mspid == "Org1MSP"
    assert message.id_bytes == client.certificate.public_bytes(Encoding.PEM)
    identity = parse_identity(client.serialized)
    assert identity.serialized == client.serialized
    assert identity.fingerprint == client.certificate.fingerprint(hashes.SHA256()).hex()
    assert identity.organizational_units == ("client",)
    assert identity.expires_at == client.certificate.not_valid_after_utc
    assert identity == client
    assert str(identity) == "OU=client,CN=user1 of Org1MSP"


@pytest.mark.parametrize("line_ending", [b"\n", b"\r\n"])
def test_pem_without_a_type_is_taken_for_a_certificate(org1: Any, line_ending: bytes) -> None:
    signer = org1.issue("old", "client")
    text = base64.encodebytes(signer.certificate.public_bytes(Encoding.DER))
    pem = b"-----BEGIN -----\n" + text + b"-----END -----\n"
    serialized = identities_pb2.SerializedIdentity(
        mspid="Org1MSP", id_bytes=pem.replace(b"\n", line_ending)
    ).SerializeToString()
    identity = identify(serialized, {"Org1MSP": org1.msp})
    assert identity == signer
    identity.verify(b"message", signer.sign(b"message"))


def test_a_key_is_not_a_certificate() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(NotACertificate, match="no PEM certificate"):
        _parse(pem)
    renamed = pem.replace(b"PRIVATE KEY", b"CERTIFICATE")
    with pytest.raises(NotACertificate, match=r"is not an X\.509 certificate"):
        _parse(renamed)


def test_broken_base64_is_not_a_certificate() -> None:
    with pytest.raises(NotACertificate, match="base64"):
        _parse(b"-----BEGIN CERTIFICATE-----\nAAAAA\n-----END CERTIFICATE-----\n")


def test_bytes_that_are_no_identity_are_named_so() -> None:
    with pytest.raises(MalformedIdentity, match="SerializedIdentity"):
        parse_identity(b"\xff\xff")
    with pytest.raises(MalformedIdentity, match="names no MSP id"):
        parse_identity(b"")


def test_a_key_of_another_kind_is_unfit(org1: Any) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    certificate = org1.root.certify(org1.root.name, key.public_key(), [])
    with pytest.raises(UnfitCertificate, match="P-256 or P-384"):
        parse_identity(serialize("Org1MSP", certificate))
    other_curve = ec.generate_private_key(ec.SECP256K1())
    certificate = org1.root.certify(org1.root.name, other_curve.public_key(), [])
    with pytest.raises(UnfitCertificate, match="P-256 or P-384"):
        parse_identity(serialize("Org1MSP", certificate))


@given(data=st.binary(max_size=300))
def test_random_bytes_raise_only_identity_errors(org1: Any, data: bytes) -> None:
    with pytest.raises(IdentityError):
        identify(data, {"Org1MSP": org1.msp})
    wrapped = identities_pb2.SerializedIdentity(mspid="Org1MSP", id_bytes=data)
    with pytest.raises(IdentityError):
        identify(wrapped.SerializeToString(), {"Org1MSP": org1.msp})


# A serial number that is not positive is read with a warning, by no choice of ours.
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(position=st.integers(min_value=0), value=st.integers(0, 255))
def test_a_certificate_with_a_changed_byte_raises_only_identity_errors(
    org1: Any, client: Any, position: int, value: int
) -> None:
    der = bytearray(client.certificate.public_bytes(Encoding.DER))
    position %= len(der)
    if der[position] == value:
        value ^= 1
    der[position] = value
    pem = b"-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----" % base64.encodebytes(der)
    message = identities_pb2.SerializedIdentity(mspid="Org1MSP", id_bytes=pem)
    with pytest.raises(IdentityError):
        identify(message.SerializeToString(), {"Org1MSP": org1.msp})


_CHANGES = st.lists(
    st.tuples(
        st.integers(min_value=0), st.sampled_from(("set", "drop", "put")), st.binary(max_size=4)
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.filterwarnings("ignore")  # cryptography's opinions on what it reads
@settings(max_examples=400)
@given(changes=_CHANGES)
def test_a_mutated_certificate_raises_only_identity_errors(
    org1: Any, client: Any, changes: list[tuple[int, str, bytes]]
) -> None:
    der = bytearray(client.certificate.public_bytes(Encoding.DER))
    for position, change, data in changes:
        at = position % len(der)
        end = at if change == "put" else at + len(data)
        der[at:end] = b"" if change == "drop" else data
    _use(org1.msp, bytes(der))


@pytest.mark.filterwarnings("ignore")
def test_every_tag_of_a_certificate_may_be_any_other(org1: Any, client: Any) -> None:
    der = client.certificate.public_bytes(Encoding.DER)
    kinds = (0x01, 0x02, 0x03, 0x05, 0x0C, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1C, 0x1E, 0x30)
    for position, tag in enumerate(der):
        for kind in kinds if tag in kinds else ():
            _use(org1.msp, der[:position] + bytes((kind,)) + der[position + 1 :])


def _use(msp: MSP, der: bytes) -> None:
    """Do with a stranger's certificate all that is done; refusals must be of the right kind."""
    pem = b"-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----" % base64.encodebytes(der)
    message = identities_pb2.SerializedIdentity(mspid="Org1MSP", id_bytes=pem)
    with contextlib.suppress(IdentityError):
        identity = msp.deserialize(message.SerializeToString())
        assert len(str(identity)) < 1000
        with contextlib.suppress(BadSignature):
            identity.verify(b"message", encode_dss_signature(1, 1))
        msp.validate(identity)


def test_a_subject_with_a_bit_string_is_not_a_certificate() -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AAAAAA")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    bad = certificate.replace(b"\x0c\x06AAAAAA", b"\x03\x06\x00AAAAA")
    with pytest.raises(NotACertificate, match=r"is not an X\.509 certificate .*BitString"):
        _parse(b"-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----" % base64.b64encode(bad))


_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_HOSTILE = {
    "newlines": lambda size: _BEGIN + b"\n" * size,
    "begins": lambda size: _BEGIN * (size // len(_BEGIN)),
    "untyped begins": lambda size: b"-----BEGIN -----" * (size // 16),
    "dashes": lambda size: b"-" * size,
    "begins without an end": lambda size: b"-----BEGIN " * (size // 11),
    "begin and dashes": lambda size: _BEGIN + b"-" * size,
    "text": lambda size: _BEGIN + b"A" * size,
    "other ends": lambda size: _BEGIN + b"-----END X509 CERTIFICATE-----" * (size // 30),
    "base64 and newlines": lambda size: _BEGIN + b"A\n" * (size // 2) + _END,
}


@pytest.mark.parametrize("shape", _HOSTILE.values(), ids=_HOSTILE)
def test_hostile_pem_is_refused_soon(shape: Callable[[int], bytes]) -> None:
    with pytest.raises(MalformedIdentity, match="more than the"):
        _parse(shape(1_000_000))
    began = time.process_time()
    with pytest.raises(NotACertificate):
        _parse(shape(MAX_IDENTITY_BYTES - 100))
    with pytest.raises(NotACertificate):
        read_certificate(shape(1_000_000))
    # A few milliseconds; what was quadratic took an hour.
    assert time.process_time() - began < 1


def test_a_folder_gives_the_signing_identity_whose_key_fits(tmp_path: Path, client: Any) -> None:
    _write_folder(tmp_path, client)
    loaded = load_signing_identity(tmp_path, "Org1MSP")
    assert loaded == client
    client.verify(b"message", loaded.sign(b"message"))


def test_a_folder_without_the_key_says_which_file_lacks_it(tmp_path: Path, client: Any) -> None:
    _write_folder(tmp_path, client)
    (tmp_path / "keystore" / "key.pem").unlink()
    with pytest.raises(MSPConfigurationError, match=r"keystore holds no private key .*cert\.pem"):
        load_signing_identity(tmp_path, "Org1MSP")


def test_an_empty_folder_says_to_enrol(tmp_path: Path) -> None:
    with pytest.raises(MSPConfigurationError, match="signcerts holds no certificate: enrol"):
        load_signing_identity(tmp_path, "Org1MSP")


def test_a_folder_with_a_broken_certificate_names_the_file(tmp_path: Path, client: Any) -> None:
    _write_folder(tmp_path, client)
    (tmp_path / "signcerts" / "cert.pem").write_bytes(b"nothing")
    with pytest.raises(MSPConfigurationError, match=r"cert\.pem cannot be used"):
        load_signing_identity(tmp_path, "Org1MSP")


def _parse(id_bytes: bytes) -> None:
    message = identities_pb2.SerializedIdentity(mspid="Org1MSP", id_bytes=id_bytes)
    parse_identity(message.SerializeToString())


def _write_folder(folder: Path, signer: Any) -> None:
    (folder / "signcerts").mkdir()
    (folder / "keystore").mkdir()
    (folder / "signcerts" / "cert.pem").write_bytes(signer.certificate.public_bytes(Encoding.PEM))
    other = ec.generate_private_key(ec.SECP256R1())
    for name, key in (("another.pem", other), ("key.pem", signer._private_key)):
        (folder / "keystore" / name).write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
    (folder / "keystore" / "note.txt").write_text("not a key")
