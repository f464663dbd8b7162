"""Fabric's variables, and mutual TLS by them."""

import base64
import datetime
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from shim.tests.scripted_peer import Peer, listening, serving

from selvedge_shim import Chaincode, ConfigurationError, read_environment

NAMES = {"CORE_CHAINCODE_ID_NAME": "asset:1.0", "CORE_PEER_ADDRESS": "localhost:7052"}


@dataclass
class Pair:
    certificate: bytes
    key: bytes


def self_signed() -> Pair:
    """A certificate for localhost that is its own root."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


@pytest.mark.parametrize("encoded", [False, True])
async def test_chaincode_registers_over_mutual_tls(tmp_path: Path, encoded: bool) -> None:
    server, client = self_signed(), self_signed()
    credentials = grpc.ssl_server_credentials(
        [(server.key, server.certificate)],
        root_certificates=client.certificate,
        require_client_auth=True,
    )
    write = base64.b64encode if encoded else bytes
    (tmp_path / "root").write_bytes(server.certificate)
    (tmp_path / "certificate").write_bytes(write(client.certificate))
    (tmp_path / "key").write_bytes(write(client.key))
    kind = "PATH" if encoded else "FILE"
    peer = Peer()
    async with listening(peer, "localhost:0", credentials) as address:
        environment = read_environment(
            {
                **NAMES,
                "CORE_PEER_ADDRESS": address,
                "CORE_PEER_TLS_ENABLED": "true",
                "CORE_PEER_TLS_ROOTCERT_FILE": str(tmp_path / "root"),
                f"CORE_TLS_CLIENT_CERT_{kind}": str(tmp_path / "certificate"),
                f"CORE_TLS_CLIENT_KEY_{kind}": str(tmp_path / "key"),
            }
        )
        async with serving(Chaincode(), environment):
            stream = await peer.accept()
            assert (await stream.register()).name == "asset:1.0"
            stream.end()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"CORE_CHAINCODE_ID_NAME": ""}, "CORE_CHAINCODE_ID_NAME is not set: it gives the name"),
        ({"CORE_PEER_ADDRESS": ""}, "CORE_PEER_ADDRESS is not set"),
        ({"CORE_PEER_TLS_ENABLED": "yes"}, "CORE_PEER_TLS_ENABLED is 'yes': set it to true or"),
        ({"CORE_PEER_TLS_ENABLED": "true"}, "CORE_PEER_TLS_ROOTCERT_FILE is not set"),
        (
            {
                "CORE_PEER_TLS_ENABLED": "true",
                "CORE_PEER_TLS_ROOTCERT_FILE": "root",
                "CORE_TLS_CLIENT_KEY_FILE": "key",
            },
            "of CORE_TLS_CLIENT_CERT_FILE and CORE_TLS_CLIENT_KEY_FILE only one is set",
        ),
        ({"CORE_CHAINCODE_LOGGING_LEVEL": "loud"}, "CORE_CHAINCODE_LOGGING_LEVEL is 'loud'"),
    ],
)
def test_wrong_environment_is_named(changes: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_environment({**NAMES, **changes})
    assert sentence in str(refused.value)


def test_material_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("-----BEGIN CERTIFICATE-----")
    (tmp_path / "certificate").write_text("-----BEGIN CERTIFICATE-----")
    environment = {
        **NAMES,
        "CORE_PEER_TLS_ENABLED": "true",
        "CORE_PEER_TLS_ROOTCERT_FILE": str(tmp_path / "root"),
        "CORE_TLS_CLIENT_CERT_PATH": str(tmp_path / "certificate"),
        "CORE_TLS_CLIENT_KEY_PATH": str(tmp_path / "missing"),
    }
    tls = read_environment(environment).tls
    assert tls is not None
    with pytest.raises(ConfigurationError, match="certificate must hold the base64 of a PEM"):
        tls.read()
    (tmp_path / "certificate").write_bytes(base64.b64encode(b"pem"))
    with pytest.raises(ConfigurationError, match="missing cannot be read: No such file"):
        tls.read()


def test_fabric_level_names_are_known() -> None:
    assert read_environment({**NAMES, "CORE_CHAINCODE_LOGGING_LEVEL": "NOTICE"}).log_level == 20
