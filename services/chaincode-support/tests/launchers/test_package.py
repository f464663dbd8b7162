"""What the files of a package say, and what is wrong with those that cannot be used."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from testchannel import Organisation

from chaincode_support.launchers.errors import BrokenPackage
from chaincode_support.launchers.package import Command, Connection, Package, read_package

CCAAS = {"type": "ccaas", "label": "mycc_1.0"}
PROCESS = {"type": "process", "label": "mycc_1.0", "command": ["./mycc"]}
PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
TEMPLATES = {"peername": "peer0", "networkid": "dev"}


def read(
    metadata: Any, connection: Any = None, place: Path = Path("mycc.tar.gz"), **changes: Any
) -> Package:
    def encoded(document: Any) -> bytes:
        return document if isinstance(document, bytes) else json.dumps(document).encode()

    if isinstance(metadata, dict):
        metadata = {**metadata, **changes}
    if connection is None:
        connection = {"address": "localhost:9999"}
    return read_package(encoded(metadata), encoded(connection), "abc", place, TEMPLATES)


@pytest.mark.parametrize(
    ("metadata", "name", "version"),
    [
        ({"label": "mycc_1.0"}, "mycc", "1.0"),
        ({"label": "mycc"}, "mycc", "1.0"),
        ({"label": "mycc_v2"}, "mycc", "v2"),
        ({"label": "asset_transfer"}, "asset_transfer", "1.0"),
        ({"label": "asset_transfer_1.2.3-rc.1"}, "asset_transfer", "1.2.3-rc.1"),
        ({"label": "asset_2024_3"}, "asset_2024", "3"),
        ({"label": "mycc_1.0", "name": "other"}, "other", "1.0"),
        ({"label": "mycc_1.0", "version": "2"}, "mycc", "2"),
        ({"label": "mycc-1.0", "name": None, "path": "src", "other": [1]}, "mycc-1.0", "1.0"),
    ],
)
def test_name_and_version_come_from_the_label_or_are_said(
    metadata: dict[str, Any], name: str, version: str
) -> None:
    package = read({"type": "ccaas"}, **metadata)
    assert (package.name, package.version) == (name, version)
    assert package.id == f"{metadata['label']}:abc"


def test_a_chaincode_may_register_as_its_package_or_by_its_name() -> None:
    package = read(CCAAS)
    accepted = ("mycc_1.0:abc", "mycc_1.0", "mycc", "mycc:1.0", "mycc:2.0")
    assert all(map(package.accepts, accepted))
    refused = ("", "other", "other:1.0", "mycc_1.0:def", "mycc_1.0:1.0", "mycc_2.0", "mycc2:1.0")
    assert not any(map(package.accepts, refused))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"type": "golang"}, "has the type 'golang', and this peer builds no chaincode: package"),
        ({"type": None}, 'metadata.json lacks the text "type"'),
        ({"label": ""}, 'metadata.json lacks the text "label"'),
        ({"label": 7}, 'metadata.json lacks the text "label"'),
        ({"label": "a:b"}, "the label in metadata.json is 'a:b', but must be letters, digits"),
        ({"label": "x" * 161}, "the label in metadata.json is 'xxx.*at most 160"),
        ({"name": "../up"}, r"the name in metadata.json is '\.\./up', but must be"),
        ({"version": "1:0"}, "the version in metadata.json is '1:0', but must be"),
        ({"name": "qscc"}, "names chaincode qscc, which is a part of the peer"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BrokenPackage, match=sentence):
        read(CCAAS, **changes)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (b"{", "is not JSON: "),
        (b"[" * 100_000, "is not JSON: "),
        (b"\xff", "is not JSON: "),
        (b"[]", "is not a JSON object"),
    ],
)
def test_what_is_no_json_object_is_refused(document: bytes, sentence: str) -> None:
    with pytest.raises(BrokenPackage, match=f"metadata.json {sentence}"):
        read(document)
    with pytest.raises(BrokenPackage, match=f"connection.json {sentence}"):
        read(CCAAS, document)


def connection_of(**connection: Any) -> Connection:
    launch = read(CCAAS, {"address": "cc:9999", **connection}).launch
    assert isinstance(launch, Connection)
    return launch


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("10s", 10.0), ("1m", 60.0), ("", 3.0), (None, 3.0), (0, 3.0), (2_000_000_000, 2.0)],
)
def test_the_time_to_dial_is_as_go_has_it(value: object, seconds: float) -> None:
    assert connection_of(dial_timeout=value).dial_timeout == seconds


def test_templates_in_a_connection_are_filled_in() -> None:
    address = "{{.peername}}.{{ .networkid }}:9999"
    assert connection_of(address=address).address == "peer0.dev:9999"


@pytest.mark.parametrize(
    ("connection", "sentence"),
    [
        ({"address": ""}, 'connection.json lacks the text "address"'),
        ({"address": "cc"}, "the address in connection.json is 'cc', but must be host:port"),
        (
            {"address": "unix:///tmp/x:1"},
            "is 'unix:///tmp/x:1', but must be host:port with the name",
        ),
        ({"address": "a,b:1"}, "is 'a,b:1', but must be host:port with the name"),
        ({"address": "h" * 254 + ":1"}, "but must be host:port with the name"),
        ({"address": "{{.host}}:1"}, r"has the template '\{\{\.host\}\}': here there is only "),
        ({"dial_timeout": "soon"}, "dial_timeout in connection.json is 'soon', but must be a dura"),
        ({"dial_timeout": "11m"}, "dial_timeout in connection.json is '11m'"),
        ({"dial_timeout": True}, "dial_timeout"),
        ({"dial_timeout": 10**400}, "dial_timeout"),
        ({"dial_timeout": -1}, "dial_timeout"),
        ({"tls_required": "yes"}, '"tls_required" in connection.json must be true or false'),
        ({"tls_required": True, "root_cert": "x"}, "root_cert in connection.json holds no certif"),
    ],
)
def test_a_connection_that_makes_no_sense_is_refused(
    connection: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BrokenPackage, match=sentence):
        connection_of(**connection)


def test_a_package_that_serves_needs_a_connection() -> None:
    with pytest.raises(BrokenPackage, match=r"there is no connection\.json: put one beside"):
        read_package(json.dumps(CCAAS).encode(), None, "abc", Path("x"), TEMPLATES)


def test_both_sides_of_tls_come_from_the_package_or_are_the_peer_s_own() -> None:
    organisation = Organisation("Org1MSP")
    certificate, key = (pem.decode() for pem in organisation.issue_tls("peer"))
    root = organisation.root.decode()
    assert connection_of(root_cert="ignored without TLS").tls is None
    given = connection_of(
        tls_required=True,
        client_auth_required=True,
        root_cert=root,
        client_cert=certificate,
        client_key=key,
    ).tls
    assert given is not None
    assert (given.root, given.pair) == (root.encode(), (certificate.encode(), key.encode()))
    own = connection_of(tls_required=True, client_auth_required=True).tls
    assert own is not None
    assert (own.root, own.shows_certificate, own.pair) == (None, True, None)
    unasked = connection_of(tls_required=True, client_cert=certificate).tls
    assert unasked is not None
    assert not unasked.shows_certificate


def test_a_pair_that_is_none_is_refused() -> None:
    organisation = Organisation("Org1MSP")
    certificate, _ = (pem.decode() for pem in organisation.issue_tls("peer"))
    _, other = (pem.decode() for pem in organisation.issue_tls("other"))
    mutual = {"tls_required": True, "client_auth_required": True}
    for pair, sentence in (
        ({"client_cert": certificate}, "of client_cert and client_key .* one is missing"),
        ({"client_cert": certificate, "client_key": other}, "is not the key of client_cert"),
        ({"client_cert": certificate, "client_key": "x"}, "cannot be read: give a certificate"),
        ({"client_cert": "x", "client_key": other}, "cannot be read: give a certificate"),
    ):
        with pytest.raises(BrokenPackage, match=sentence):
            connection_of(**mutual, **pair)


@pytest.mark.parametrize("key", ["address", "root_cert", "client_cert", "client_key"])
def test_half_a_character_in_a_connection_is_refused(key: str) -> None:
    mutual = {"address": "cc:9999", "tls_required": True, "client_auth_required": True}
    with pytest.raises(BrokenPackage, match=f'connection.json lacks the text "{key}"'):
        connection_of(**{**mutual, key: "\ud800x:1"})


@pytest.mark.parametrize("key", ["type", "label", "name", "version", "directory", "tls"])
def test_half_a_character_in_metadata_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenPackage, match=f'metadata.json lacks the text "{key}"'):
        read(PROCESS, place=tmp_path, **{key: "\ud800"})


@pytest.mark.parametrize("changes", [{"command": ["\ud800"]}, {"environment": {"A": "\ud800"}}])
def test_half_a_character_in_what_a_process_is_told_is_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(BrokenPackage, match=next(iter(changes))):
        read(PROCESS, place=tmp_path, **changes)


def certificate_of_a_peer() -> str:
    return Organisation("Org1MSP").issue_tls("peer")[0].decode()


def pair_of(key: PrivateKey) -> dict[str, str]:
    """A key with a certificate for it."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mycc")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(hours=1))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {"client_cert": certificate.decode(), "client_key": pem.decode()}


def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """One of products without care for primes: to find large ones takes long, and so would it to
    see that these are none."""
    p, q = ((1 << (bits // 2)) - each for each in (1, 3))
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(65537, p * q)
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def test_keys_of_rsa_are_taken_up_to_4096_bits_without_a_look_for_primes() -> None:
    mutual = {"tls_required": True, "client_auth_required": True}
    pair = pair_of(rsa.generate_private_key(65537, 2048))
    own = certificate_of_a_peer()
    assert connection_of(**mutual, **pair).tls is not None
    usual = rsa_key(4096).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    # It was loaded, though it is no key: what it is compared with tells.
    with pytest.raises(BrokenPackage, match="is not the key of client_cert"):
        connection_of(**mutual, client_cert=own, client_key=usual)
    large = rsa_key(4608).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    assert len(large) < 4096
    with pytest.raises(BrokenPackage, match="must be a key of ECDSA, or of RSA with at most 4096"):
        connection_of(**mutual, client_cert=own, client_key=large)
    huge = rsa_key(8192).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(BrokenPackage, match=r"client_key in connection\.json has .* at most 4096:"):
        connection_of(**mutual, client_cert=own, client_key=huge)


def test_keys_of_other_kinds_are_refused() -> None:
    pair = pair_of(ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(BrokenPackage, match=r"client_key in .* must be a key of ECDSA"):
        connection_of(tls_required=True, client_auth_required=True, **pair)


@pytest.mark.parametrize("key", ["root_cert", "client_cert"])
def test_certificates_are_bounded(key: str) -> None:
    given = {
        "client_cert": certificate_of_a_peer(),
        "client_key": "x",
        key: certificate_of_a_peer() * 200,
    }
    with pytest.raises(BrokenPackage, match=f"{key} in connection.json has .* at most 65536: give"):
        connection_of(tls_required=True, client_auth_required=True, **given)


def test_a_process_takes_its_paths_from_its_folder(tmp_path: Path) -> None:
    launch = read(
        PROCESS,
        place=tmp_path,
        directory="src",
        tls="../keys",
        enrolment="/enrol/enrolment.json",
        environment={"A": "1"},
    ).launch
    assert launch == Command(
        words=("./mycc",),
        environment={"A": "1"},
        directory=tmp_path / "src",
        tls=tmp_path / "../keys",
        enrolment=Path("/enrol/enrolment.json"),
    )
    plain = read(PROCESS, place=tmp_path).launch
    assert plain == Command(("./mycc",), {}, tmp_path, tmp_path / "tls", None)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"command": None}, 'lacks "command", a list of words such as'),
        ({"command": "./mycc"}, 'lacks "command", a list of words such as'),
        ({"command": []}, 'lacks "command", a list of words such as'),
        ({"command": ["./mycc", 1]}, 'lacks "command", a list of words such as'),
        ({"command": ["a\0b"]}, 'lacks "command", a list of words such as'),
        ({"environment": ["A=1"]}, '"environment" in metadata.json must be an object'),
        ({"environment": {"A": 1}}, '"environment" in metadata.json must be an object'),
        ({"environment": {"A=B": "1"}}, '"environment" in metadata.json must be an object'),
        ({"directory": 1}, 'lacks the text "directory"'),
    ],
)
def test_a_process_that_makes_no_sense_is_refused(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(BrokenPackage, match=sentence):
        read(PROCESS, place=tmp_path, **changes)


def test_a_process_that_is_not_a_folder_on_the_peer_s_disk_is_refused() -> None:
    with pytest.raises(BrokenPackage, match=r"type process cannot be installed.* put its folder"):
        read(PROCESS)


def test_an_expired_certificate_is_the_chaincode_s_to_renew_and_no_broken_package() -> None:
    organisation = Organisation("Org1MSP")
    certificate, key = organisation.issue_tls("peer", valid=timedelta(hours=-1))
    pair = {"client_cert": certificate.decode(), "client_key": key.decode()}
    tls = connection_of(tls_required=True, client_auth_required=True, **pair).tls
    assert tls is not None
    assert tls.pair == (certificate, key)
