"""Enrolment files: read back as written, refused with the place and a way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from selvedge_common.enrolment import Enrolment, EnrolmentError


def new_root() -> tuple[bytes, str]:
    """A self-signed certificate in PEM, and its fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return pem, certificate.fingerprint(hashes.SHA256()).hex()


@pytest.fixture
def enrolment() -> Enrolment:
    pem, fingerprint = new_root()
    return Enrolment("ca:7055", pem, fingerprint, "Org1MSP", {"peer": "secret"})


def test_it_is_read_as_it_was_written(enrolment: Enrolment, tmp_path: Path) -> None:
    (tmp_path / "enrolment.json").write_bytes(enrolment.to_json())
    assert Enrolment.load(tmp_path / "enrolment.json") == enrolment


def test_the_keys_are_those_of_the_contract(enrolment: Enrolment) -> None:
    keys = json.loads(enrolment.to_json()).keys()
    assert keys == {"caAddress", "tlsRoot", "tlsRootSha256", "mspId", "tokens"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("caAddress"), "lacks the text 'caAddress'"),
        (lambda content: content.update(mspId=7), "lacks the text 'mspId'"),
        (lambda content: content.update(tokens=["a"]), "lacks 'tokens'"),
        (lambda content: content.update(tokens={"peer": ""}), "lacks 'tokens'"),
        (lambda content: content.update(tlsRoot="junk"), "holds no certificate in PEM"),
        (lambda content: content.update(tlsRoot="\ud800"), "holds no certificate in PEM"),
        (lambda content: content.update(tlsRootSha256="00"), "was altered"),
        (lambda content: content.update(tlsRoot=new_root()[0].decode()), "was altered"),
    ],
)
def test_what_is_wrong_is_named(
    enrolment: Enrolment, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    content = json.loads(enrolment.to_json())
    change(content)
    with pytest.raises(EnrolmentError, match=words) as caught:
        Enrolment.parse(json.dumps(content).encode(), "/enrol/enrolment.json")
    assert str(caught.value).startswith("/enrol/enrolment.json ")
    assert "certificate-authority token" in str(caught.value)


@given(
    st.binary()
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(repr).map(str.encode)
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(EnrolmentError):
        Enrolment.parse(data, "here")


def test_endless_nesting_is_refused() -> None:
    with pytest.raises(EnrolmentError, match="is not JSON"):
        Enrolment.parse(b"[" * 60_000, "here")


def test_a_file_beyond_reason_is_refused(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b" " * 70_000)
    with pytest.raises(EnrolmentError, match="more than 65536 bytes"):
        Enrolment.load(tmp_path / "big")


def test_a_missing_file_is_told_from_an_unreadable_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Enrolment.load(tmp_path / "missing")
    with pytest.raises(EnrolmentError, match="cannot read"):
        Enrolment.load(tmp_path)
