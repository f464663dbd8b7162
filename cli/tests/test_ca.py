"""`selvedge ca` against a ca process, on homes of its own and of others."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from cryptography import x509

from selvedge_cli import ca
from selvedge_common.msp import MSP, load_signing_identity


@contextmanager
def running_ca(home: Path) -> Iterator[str]:
    """A ca of a home as `selvedge up` runs it; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"localhost:{probe.getsockname()[1]}"
    home.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "CORE_CA_FILESYSTEMPATH": str(home / "ca"),
        "CORE_ENROLMENT_FOLDER": str(home / "enrol"),
        "CORE_CA_ADDRESS": address,
        "CORE_CA_LISTENADDRESS": address,
        "CORE_OPERATIONS_LISTENADDRESS": "127.0.0.1:0",
    }
    with (home / "ca.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "certificate_authority", "serve"], env=environment, stderr=log
        )
    try:
        deadline = time.monotonic() + 20
        while '"serving"' not in (home / "ca.log").read_text():
            assert server.poll() is None, (home / "ca.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield address
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    with running_ca(home) as address:
        yield address


@pytest.fixture
def no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def issue(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(ca.ca, ["issue", *arguments])
    return result.exit_code, result.output


def test_a_user_gets_an_msp_that_verifies(home: Path, address: str) -> None:
    code, output = issue("--user=alice", f"--home={home}", f"--ca-address={address}")
    assert code == 0, output
    assert "msp/signcerts/cert.pem" in output
    assert "Next: selvedge events --user alice" in output
    folder = home / "crypto" / "users" / "alice"
    signer = load_signing_identity(folder / "msp", "Org1MSP")
    assert signer.organizational_units == ("client",)
    msp = MSP.load(folder / "msp", "Org1MSP")
    msp.validate(msp.deserialize(signer.serialized))


def test_issuing_again_renews_and_may_change_the_role(home: Path, address: str) -> None:
    where = (f"--home={home}", f"--ca-address={address}")
    certificate = home / "crypto" / "users" / "carol" / "msp" / "signcerts" / "cert.pem"
    code, output = issue("--user=carol", *where)
    assert (code, output.partition(" ")[0]) == (0, "Wrote")
    first = certificate.read_bytes()
    code, output = issue("--user=carol", "--profile=admin", *where)
    assert code == 0
    assert output.startswith(f"Replaced the keys and certificates in {certificate.parents[2]}:")
    assert certificate.read_bytes() != first
    signer = load_signing_identity(certificate.parents[1], "Org1MSP")
    assert signer.organizational_units == ("admin",)


def test_a_chaincode_gets_files_and_the_environment_of_a_shim(home: Path, address: str) -> None:
    code, output = issue("--chaincode=my-cc", "--json", f"--home={home}", f"--ca-address={address}")
    assert code == 0, output
    report = json.loads(output)
    assert {Path(file).name for file in report["files"]} == {
        "ca.crt", "client.crt", "client.crt.b64", "client.key", "client.key.b64"
    }  # fmt: skip
    folder = Path(report["folder"])
    for file in ("client.crt", "client.key"):
        variable = f"CORE_TLS_CLIENT_{'KEY' if file.endswith('key') else 'CERT'}"
        assert report["environment"][f"{variable}_FILE"] == str(folder / file)
        assert report["environment"][f"{variable}_PATH"] == str(folder / f"{file}.b64")
    for file in report["files"]:
        if ".key" in file:
            assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600


def test_a_producer_gets_a_pair_and_where_to_publish(home: Path, address: str) -> None:
    where = (f"--home={home}", f"--ca-address={address}")
    code, output = issue("--producer=weather", *where)
    assert code == 0, output
    folder = home / "crypto" / "producers" / "weather"
    assert output.startswith(f"Wrote into {folder}:\n  ca.crt\n  client.crt\n  client.key\n")
    assert "selvedge.eventhub.v1.Producer/Publish" in output
    pem = (folder / "client.crt").read_bytes()
    extensions = x509.load_pem_x509_certificate(pem).extensions
    assert list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [
        x509.UniformResourceIdentifier("selvedge://producer/weather")
    ]


def test_a_chaincode_that_serves_gets_its_hosts(home: Path, address: str) -> None:
    where = (f"--home={home}", f"--ca-address={address}")
    code, output = issue("--chaincode=served", "--host=localhost", "--host=10.1.2.3", *where)
    assert code == 0, output
    assert "serve as localhost, 10.1.2.3, set CHAINCODE_SERVER_ADDRESS too" in output
    pem = (home / "crypto" / "chaincodes" / "served" / "client.crt").read_bytes()
    extensions = x509.load_pem_x509_certificate(pem).extensions
    assert list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [
        x509.UniformResourceIdentifier("selvedge://chaincode/served"),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("10.1.2.3")),
    ]


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("event-hub", "event-hub is a host of one of the services"),
        ("served:9999", "'served:9999' is neither a host name nor an IP address"),
    ],
)
def test_unfit_hosts_are_refused_with_the_words_of_the_ca(
    home: Path, address: str, host: str, words: str
) -> None:
    where = (f"--home={home}", f"--ca-address={address}")
    code, output = issue("--chaincode=unfit", f"--host={host}", *where)
    assert code == 1
    assert words in output
    assert not (home / "crypto" / "chaincodes" / "unfit").exists()


def test_a_report_has_absolute_paths(
    home: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home.parent)
    where = (f"--home={home.name}", f"--ca-address={address}")
    report = json.loads(issue("--chaincode=report", "--json", *where)[1])
    folder = home / "crypto" / "chaincodes" / "report"
    assert Path(report["folder"]) == folder
    assert folder / "client.crt" in map(Path, report["files"])


def test_admin_and_user1_are_there_on_first_use_and_others_are_not(
    home: Path, address: str
) -> None:
    for name, unit in (("admin", "admin"), ("user1", "client")):
        folder = ca.ensure_user(home, name, address)
        signer = load_signing_identity(folder / "msp", "Org1MSP")
        assert signer.organizational_units == (unit,)
        before = (folder / "msp" / "signcerts" / "cert.pem").read_bytes()
        assert ca.ensure_user(home, name, address) == folder
        assert (folder / "msp" / "signcerts" / "cert.pem").read_bytes() == before
    with pytest.raises(click.ClickException, match="run `selvedge ca issue --user bob`"):
        ca.ensure_user(home, "bob", address)


def test_two_first_uses_at_once_agree(tmp_path: Path) -> None:
    with running_ca(tmp_path) as address:
        users = [
            threading.Thread(target=ca.ensure_user, args=(tmp_path, "user1", address))
            for _ in range(3)
        ]
        for user in users:
            user.start()
        for user in users:
            user.join(30)
        issued = (tmp_path / "ca.log").read_text().count('"event": "issued"')
    assert issued == 2
    load_signing_identity(tmp_path / "crypto" / "users" / "user1" / "msp", "Org1MSP")


def test_good_material_serves_without_a_ca_and_yields_to_a_new_one(tmp_path: Path) -> None:
    with running_ca(tmp_path) as address:
        folder = ca.ensure_user(tmp_path, "user1", address)
    old_root = (folder / "tls" / "ca.crt").read_bytes()
    assert ca.ensure_user(tmp_path, "user1", address) == folder
    (tmp_path / "ca").rename(tmp_path / "old-ca")
    with running_ca(tmp_path) as address:
        ca.ensure_user(tmp_path, "user1", address)
    assert (folder / "tls" / "ca.crt").read_bytes() != old_root


def test_automatic_users_are_renewed_before_they_expire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Certificates begin five minutes in the past, so that less than a third is left at once.
    monkeypatch.setenv("CORE_CA_LIFETIMES_USER", "2m")
    with running_ca(tmp_path) as address:
        folder = ca.ensure_user(tmp_path, "user1", address)
        certificate = folder / "msp" / "signcerts" / "cert.pem"
        first, dialling = certificate.read_bytes(), (folder / "tls" / "client.crt").read_bytes()
        ca.ensure_user(tmp_path, "user1", address)
        second = certificate.read_bytes()
        assert second != first
        assert (folder / "tls" / "client.crt").read_bytes() == dialling
    ca.ensure_user(tmp_path, "user1", address)
    assert certificate.read_bytes() == second


def test_no_ca_at_all_is_said(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nowhere = f"localhost:{probe.getsockname()[1]}"
    code, output = issue("--user=x", f"--home={home}", f"--ca-address={nowhere}")
    assert code == 1
    assert f"no ca answers at {nowhere}: start one with `selvedge up`" in output


@pytest.mark.usefixtures("no_docker")
def test_the_ca_of_another_home_is_said(address: str, tmp_path: Path) -> None:
    code, output = issue("--user=x", f"--home={tmp_path}", f"--ca-address={address}")
    assert code == 1
    assert f"has no home in {tmp_path}: run this in the folder where" in output
    assert not (tmp_path / "crypto").exists()


def test_another_folder_is_the_cause_and_not_docker(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho no configuration file provided: not found >&2; exit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("COMPOSE_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    code, output = issue("--user=x", "--home=.selvedge", f"--ca-address={address}")
    assert code == 1
    assert f"the ca at {address} has no home in {tmp_path}/.selvedge: run this in the" in output
    assert "configuration file" not in output
    assert not (tmp_path / ".selvedge").exists()
    (tmp_path / "home" / "ca").mkdir(parents=True)
    assert "is not the one of" in issue("--user=x", "--home=home", f"--ca-address={address}")[1]


def test_a_ca_in_a_container_is_reached_through_compose(
    home: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands where `docker compose exec -T ca certificate-authority …` enters the ca's container.
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\n[ "$1 $2 $3 $4 $5" = "compose exec -T ca certificate-authority" ] || exit 9\n'
        f"shift 5\nCORE_CA_FILESYSTEMPATH={home}/ca exec {sys.executable} -m certificate_authority "
        '"$@"\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "compose.yaml").touch()
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "home"
    where = (f"--home={elsewhere}", f"--ca-address={address}")
    code, output = issue("--user=dave", *where)
    assert code == 0, output
    assert (elsewhere / "crypto" / "users" / "dave" / "tls" / "client.crt").exists()
    code, output = issue("--user=-dave", *where)
    assert code == 1
    assert "is no name for profile user" in output


@pytest.mark.parametrize("name", ["../x", "-x", "a/b", ""])
def test_unfit_names_are_refused(home: Path, address: str, name: str) -> None:
    code, output = issue(f"--user={name}", f"--home={home}", f"--ca-address={address}")
    assert code == 1
    assert "is no name for profile user" in output


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--user=a", "--chaincode=b"),
        ("--chaincode=b", "--profile=admin"),
        ("--user=a", "--host=localhost"),
        ("--user=a", "--producer=b"),
        ("--producer=b", "--host=localhost"),
        ("--producer=b", "--profile=admin"),
    ],
)
def test_contradictions_are_refused(arguments: tuple[str, ...]) -> None:
    assert issue(*arguments)[0] == 2
