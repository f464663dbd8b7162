"""Certificates as others see them: Python's verifier, OpenSSL, Fabric's expectations."""

from __future__ import annotations

import base64
import ipaddress
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from certificate_authority.authority import (
    Authority,
    open_or_make_roots,
    open_roots,
    public_key_of,
)
from certificate_authority.errors import AuthorityError, InvalidRequest
from certificate_authority.profiles import PROFILES, Signer, profile_named

YEAR = timedelta(days=365)


def new_authority(folder: Path, clock: Callable[[], datetime] | None = None) -> Authority:
    present = clock or (lambda: datetime.now(UTC))
    roots = open_or_make_roots(
        folder / "roots",
        organization="Org1MSP",
        lifetime=10 * YEAR,
        backdate=timedelta(minutes=5),
        clock=present,
    )
    return Authority(
        roots,
        organization="Org1MSP",
        namespace="fabric",
        lifetimes=dict.fromkeys(PROFILES, YEAR),
        backdate=timedelta(minutes=5),
        clock=present,
    )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return new_authority(tmp_path)


HOSTS = ("db.example.com", "10.1.2.3")


def issue(
    authority: Authority, profile: str, name: str = "peer0", hosts: tuple[str, ...] = HOSTS
) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return authority.issue(key, profile_named(profile), name, hosts).certificate


def test_server_certificate_verifies_for_each_of_its_names(authority: Authority) -> None:
    certificate = issue(authority, "tls-server")
    verifier = PolicyBuilder().store(Store([authority.tls_root.certificate]))
    names = ("peer0", "localhost", "peer0.fabric", "peer0.fabric.svc")
    for name in (*names, "peer0.fabric.svc.cluster.local", "db.example.com"):
        verifier.build_server_verifier(x509.DNSName(name)).verify(certificate, [])
    sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(address) for address in sans.get_values_for_type(x509.IPAddress)]
    assert addresses == ["127.0.0.1", "::1", "10.1.2.3"]


def test_only_servers_get_names(authority: Authority) -> None:
    for profile in PROFILES.keys() - {"tls-server", "chaincode", "producer"}:
        with pytest.raises(x509.ExtensionNotFound):
            issue(authority, profile).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )


def test_producer_carries_its_name_as_uri_and_no_host(authority: Authority) -> None:
    uri = x509.UniformResourceIdentifier("selvedge://producer/weather")
    extensions = issue(authority, "producer", "weather", HOSTS).extensions
    assert list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [uri]
    usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_chaincode_carries_its_name_as_uri_and_no_host_that_it_was_not_given(
    authority: Authority,
) -> None:
    uri = x509.UniformResourceIdentifier("selvedge://chaincode/asset-transfer")
    extensions = issue(authority, "chaincode", "asset-transfer", ()).extensions
    assert list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [uri]
    certificate = issue(authority, "chaincode", "asset-transfer", (*HOSTS, HOSTS[0]))
    extensions = certificate.extensions
    sans = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(sans) == [
        uri,
        x509.DNSName("db.example.com"),
        x509.IPAddress(ipaddress.ip_address("10.1.2.3")),
    ]
    usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}


@pytest.mark.parametrize(
    ("profile", "unit"),
    [("peer", "peer"), ("orderer", "orderer"), ("user", "client"), ("admin", "admin")],
)
def test_identities_come_from_the_identity_root_with_their_unit(
    authority: Authority, profile: str, unit: str
) -> None:
    certificate = issue(authority, profile)
    certificate.verify_directly_issued_by(authority.identity_root.certificate)
    units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    assert [attribute.value for attribute in units] == [unit]


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_certificate_has_what_msp_and_go_ask_for(authority: Authority, profile: str) -> None:
    certificate = issue(authority, profile)
    root = (
        authority.tls_root
        if profile_named(profile).signer is Signer.TLS
        else authority.identity_root
    )
    get = certificate.extensions.get_extension_for_class
    assert get(x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
    usage = get(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    issuer = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert get(x509.AuthorityKeyIdentifier).value.key_identifier == issuer.digest
    assert get(x509.SubjectKeyIdentifier).value.digest
    assert certificate.serial_number > 0
    _, s = decode_dss_signature(certificate.signature)
    assert s <= ec.SECP256R1().group_order // 2


@pytest.mark.parametrize(
    ("profile", "purpose"),
    [
        ("tls-server", "sslserver"),
        ("tls-client", "sslclient"),
        ("chaincode", "sslclient"),
        ("chaincode", "sslserver"),
        ("producer", "sslclient"),
        ("peer", "any"),
    ],
)
def test_openssl_verifies(authority: Authority, tmp_path: Path, profile: str, purpose: str) -> None:
    openssl = shutil.which("openssl")
    assert openssl, "install the openssl command: chains are checked with it"
    root = authority.identity_root if profile == "peer" else authority.tls_root
    (tmp_path / "root.pem").write_bytes(root.pem)
    leaf = issue(authority, profile).public_bytes(serialization.Encoding.PEM)
    (tmp_path / "leaf.pem").write_bytes(leaf)
    command = [openssl, "verify", "-x509_strict", "-purpose", purpose]
    verified = subprocess.run(
        [*command, "-CAfile", "root.pem", "leaf.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


def test_certificates_begin_in_the_past_and_never_outlive_their_root(tmp_path: Path) -> None:
    start = datetime.now(UTC).replace(microsecond=0)
    present = [start]
    authority = new_authority(tmp_path, lambda: present[0])
    first = issue(authority, "peer")
    assert first.not_valid_before_utc == start - timedelta(minutes=5)
    assert first.not_valid_after_utc == start + YEAR
    present[0] = start + 10 * YEAR - timedelta(days=1)
    root_end = authority.identity_root.certificate.not_valid_after_utc
    assert issue(authority, "peer").not_valid_after_utc == root_end
    present[0] = root_end
    with pytest.raises(AuthorityError, match="expired"):
        issue(authority, "peer")


def test_roots_are_kept_and_their_keys_are_private(tmp_path: Path) -> None:
    first, second = new_authority(tmp_path), new_authority(tmp_path)
    assert first.tls_root.sha256 == second.tls_root.sha256
    assert first.identity_root.sha256 == second.identity_root.sha256
    assert first.tls_root.sha256 != first.identity_root.sha256
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "roots").iterdir()}
    assert modes["tls-root.key"] == modes["identity-root.key"] == 0o600
    assert (tmp_path / "roots").stat().st_mode & 0o777 == 0o700


def test_new_roots_are_on_the_disk_before_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Path] = []
    fsync, rename = os.fsync, os.rename

    def sync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def move(source: Path, target: Path) -> None:
        done.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", move)
    new_authority(tmp_path)
    assert done[-2:] == [tmp_path / "roots", tmp_path]
    begun = {path for path in done[:-2] if path.parent == tmp_path}
    assert len(begun) == 1
    assert sum(path.parent in begun for path in done) == 4


def test_a_lost_file_of_the_roots_is_to_be_restored(tmp_path: Path) -> None:
    new_authority(tmp_path)
    (tmp_path / "roots" / "tls-root.key").unlink()
    with pytest.raises(AuthorityError, match=r"tls-root.key\): restore the folder"):
        new_authority(tmp_path)


def test_mixed_up_roots_are_named(tmp_path: Path) -> None:
    new_authority(tmp_path)
    roots = tmp_path / "roots"
    (roots / "tls-root.key").write_bytes((roots / "identity-root.key").read_bytes())
    with pytest.raises(AuthorityError, match=r"tls-root.key is not the ECDSA key of"):
        open_roots(roots)


def _csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: curve.name)
def test_p256_and_p384_are_taken(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    assert public_key_of(_csr(key)) == key.public_key()


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP521R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-521", "RSA"],
)
def test_other_keys_are_refused(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    with pytest.raises(InvalidRequest, match="use ECDSA on P-256 or P-384"):
        public_key_of(_csr(key))


def test_a_request_signed_by_another_key_is_refused() -> None:
    der = bytearray(
        x509.load_pem_x509_csr(_csr(ec.generate_private_key(ec.SECP256R1()))).public_bytes(
            serialization.Encoding.DER
        )
    )
    der[-1] ^= 1
    tampered = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(InvalidRequest, match="own signature does not verify"):
        public_key_of(tampered)


def test_a_request_of_an_unknown_version_is_refused() -> None:
    pem = _csr(ec.generate_private_key(ec.SECP256R1()))
    der = x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER)
    odd = base64.encodebytes(der.replace(b"\x02\x01\x00", b"\x02\x01\x07", 1))
    with pytest.raises(InvalidRequest, match="not PKCS #10"):
        public_key_of(
            b"-----BEGIN CERTIFICATE REQUEST-----\n%s-----END CERTIFICATE REQUEST-----\n" % odd
        )


@pytest.mark.parametrize("junk", [b"", b"junk", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not PKCS #10"):
        public_key_of(junk)


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        ("user", "../admin"),
        ("user", ""),
        ("user", "a" * 65),
        ("user", ".hidden"),
        ("tls-server", "a.b"),
        ("chaincode", "a--b"),
        ("chaincode", "a/b"),
        ("producer", "a/b"),
    ],
)
def test_unfit_names_are_refused(profile: str, name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no name for profile"):
        profile_named(profile).check_name(name)
