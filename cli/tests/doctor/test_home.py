"""Homes that are wrong in one way: the folder, its disk, the certificates and keys in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from cli.tests.doctor.conftest import Examined
from cli.tests.homes import AGEING, EARLY, EXPIRED, Home, Span

from selvedge_cli.doctor import certificates, disk, tools
from selvedge_cli.doctor import home as homes
from selvedge_cli.doctor.findings import Finding, Severity


def only(found: list[Finding], where: Path, severity: Severity = Severity.ERROR) -> Finding:
    (finding,) = found
    assert (finding.where, finding.severity) == (str(where), severity)
    return finding


def test_home_as_it_should_be(examined: Examined, home: Home) -> None:
    home.add_chaincode("mycc")
    for examination in (homes, disk, certificates):
        assert list(examination.examine(examined())) == []


def test_home_that_is_not_there(examined: Examined, home: Home) -> None:
    shutil.rmtree(home.path)
    assert "--home" in only(list(homes.examine(examined())), home.path).remedy


def test_home_that_cannot_be_written(
    examined: Examined, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is forbidden to the superuser, who may be running this.
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert only(list(homes.examine(examined())), home.path).what == "it cannot be written"


def test_automatic_user_who_has_not_enrolled_is_noted(examined: Examined, home: Home) -> None:
    folder = home.path / "crypto" / "users" / "user1"
    shutil.rmtree(folder)
    finding = only(list(homes.examine(examined())), folder, Severity.NOTE)
    assert "selvedge status --user user1" in finding.remedy


def test_other_user_who_has_not_enrolled(examined: Examined, home: Home) -> None:
    finding = only(
        list(homes.examine(examined(user="alice"))), home.path / "crypto" / "users" / "alice"
    )
    assert finding.remedy == "run `selvedge ca issue --user alice`"


def test_certificates_of_another_ca_than_the_homes(examined: Examined, home: Home) -> None:
    other = Home(home.path.parent / "other")
    root = home.path / "ca" / "tls" / "ca.crt"
    root.parent.mkdir(parents=True)
    root.write_bytes(other.tls.pem)
    home.add_chaincode("mycc")
    assert list(homes.examine(examined())) == []  # services of another ca may run
    (home.path / "up.lock").write_text(f"{os.getpid()}\n")
    found = list(homes.examine(examined()))
    assert {finding.where for finding in found} == {
        str(home.path / "crypto" / file)
        for file in ("users/user1/tls/ca.crt", "users/admin/tls/ca.crt", "chaincodes/mycc/ca.crt")
    }
    assert {finding.what for finding in found} == {f"it is from another ca than {root}"}
    assert all("gets new ones" in each.remedy or "ca issue" in each.remedy for each in found)


def test_chaincode_of_another_ca_than_the_user(examined: Examined, home: Home) -> None:
    other = Home(home.path.parent / "other").add_chaincode("mycc")
    folder = home.path / "crypto" / "chaincodes" / "mycc"
    shutil.copytree(other, folder)
    finding = only(list(homes.examine(examined())), folder / "ca.crt")
    assert finding.remedy == "run `selvedge ca issue --chaincode mycc`"


@pytest.mark.parametrize("alive", [True, False])
def test_addresses_that_a_killed_up_left(examined: Examined, home: Home, alive: bool) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (home.path / "up.lock").write_text(f"{os.getpid() if alive else ended.pid}\n")
    addresses = home.path / "addresses.json"
    addresses.write_text("{}")
    found = list(homes.examine(examined()))
    if alive:
        assert found == []
    else:
        assert "delete the file" in only(found, addresses, Severity.WARNING).remedy


@pytest.mark.parametrize(
    ("free", "severity"),
    [(disk.LITTLE - 1, Severity.WARNING), (disk.TOO_LITTLE - 1, Severity.ERROR)],
)
def test_disk_that_is_nearly_full(
    examined: Examined, home: Home, monkeypatch: pytest.MonkeyPatch, free: int, severity: Severity
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free))
    finding = only(list(disk.examine(examined())), home.path, severity)
    assert finding.what == f"{free >> 20} MB are left on its disk"


@pytest.mark.parametrize(
    ("span", "what"),
    [
        (EXPIRED, "the certificate expired on"),
        (EARLY, "this machine's clock and the ca's differ"),
    ],
)
def test_certificate_outside_of_its_time(
    examined: Examined, home: Home, span: Span, what: str
) -> None:
    folder = home.add_chaincode("mycc", span=span)
    assert what in only(list(certificates.examine(examined())), folder / "client.crt").what


def test_expired_user(examined: Examined, home: Home) -> None:
    folder = home.add_user("alice", span=EXPIRED)
    found = list(certificates.examine(examined()))
    assert [finding.where for finding in found] == [
        str(folder / "msp/signcerts/cert.pem"),
        str(folder / "tls/client.crt"),
    ]
    assert {finding.remedy for finding in found} == {"run `selvedge ca issue --user alice`"}


def test_certificate_near_its_end(examined: Examined, home: Home) -> None:
    folder = home.add_chaincode("mycc", span=AGEING)
    finding = only(list(certificates.examine(examined())), folder / "client.crt", Severity.WARNING)
    assert "less than a third of its life is left" in finding.what


def test_automatic_user_near_the_end_is_renewed_anyway(examined: Examined, home: Home) -> None:
    home.add_user("user1", span=AGEING)
    assert list(certificates.examine(examined())) == []


def test_key_of_another_certificate(examined: Examined, home: Home) -> None:
    folder, other = home.add_chaincode("mycc"), home.add_chaincode("other")
    for name in ("client.key", "client.key.b64"):
        shutil.copy(other / name, folder / name)
    finding = only(list(certificates.examine(examined())), folder / "client.crt")
    assert finding.what == "the key is not the certificate's"


def test_certificate_of_another_name(examined: Examined, home: Home) -> None:
    folder = home.add_chaincode("mycc", named="yourcc")
    finding = only(list(certificates.examine(examined())), folder / "client.crt")
    assert finding.what == "the certificate is not for selvedge://chaincode/mycc"
    assert finding.remedy == "run `selvedge ca issue --chaincode mycc`"


@pytest.mark.parametrize("name", ["client.key", "client.key.b64"])
def test_key_that_others_may_read(examined: Examined, home: Home, name: str) -> None:
    key = home.add_chaincode("mycc") / name
    key.chmod(0o644)
    finding = only(list(certificates.examine(examined())), key, Severity.WARNING)
    assert finding.what == "others may read this key (mode 0644)"
    assert finding.remedy == f"run `chmod 600 {key}`"


@pytest.mark.parametrize("content", [b"LS0tLS1CRUdJTg==", b"not base64!"])
def test_base64_that_is_not_of_the_file_beside_it(
    examined: Examined, home: Home, content: bytes
) -> None:
    encoded = home.add_chaincode("mycc") / "client.crt.b64"
    encoded.write_bytes(content)
    finding = only(list(certificates.examine(examined())), encoded)
    assert finding.what == "it is not the base64 of client.crt beside it"


def test_services_are_examined_while_they_run(examined: Examined, home: Home) -> None:
    assert list(certificates.examine(examined())) == []
    (home.path / "up.lock").write_text(f"{os.getpid()}\n")
    found = list(certificates.examine(examined()))
    assert {finding.remedy for finding in found} == {
        "start chaincode-support again, which then enrols anew",
        "start event-hub again, which then enrols anew",
    }
    assert str(home.path / "event-hub" / "tls" / "server.crt") in {each.where for each in found}


@pytest.mark.parametrize(
    ("compose", "local_ca", "told"),
    [(True, False, True), (True, True, False), (False, False, False)],
)
def test_docker_is_missed_where_a_ca_is_in_a_container(
    examined: Examined,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    compose: bool,
    local_ca: bool,
    told: bool,
) -> None:
    monkeypatch.chdir(home.path)
    monkeypatch.delenv("COMPOSE_FILE", raising=False)
    if compose:
        (home.path / "docker-compose.yml").touch()
    if local_ca:
        (home.path / "ca").mkdir()
    found = list(tools.examine(examined({"PATH": str(home.path)})))
    assert [finding.where for finding in found] == ["docker"] * told


def test_service_that_is_not_installed(examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "event_hub", None)
    (finding,) = tools.examine(examined())
    assert (finding.where, finding.severity) == ("event-hub", Severity.WARNING)
