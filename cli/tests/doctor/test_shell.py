"""Variables of a shell from which a chaincode does not start, each wrong in one way."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.tests.doctor.conftest import Examined
from cli.tests.homes import Home

from selvedge_cli.ca import chaincode_environment
from selvedge_cli.doctor import shell
from selvedge_cli.doctor.findings import Finding, Severity


@pytest.fixture
def environ(home: Home) -> dict[str, str]:
    """What `selvedge ca issue --chaincode mycc` has one export."""
    folder = home.add_chaincode("mycc")
    return chaincode_environment(home.path, folder, "mycc")


def without(environ: dict[str, str], pair: tuple[str, str]) -> dict[str, str]:
    """The pair in its other form only."""
    return {name: value for name, value in environ.items() if name not in pair}


def only(found: list[Finding], variable: str, severity: Severity = Severity.ERROR) -> Finding:
    (finding,) = found
    assert (finding.where, finding.severity) == (variable, severity)
    return finding


def test_what_is_exported_as_told_is_well(examined: Examined, environ: dict[str, str]) -> None:
    assert list(shell.examine(examined(environ))) == []
    for pair in (shell.PLAIN_PAIR, shell.ENCODED_PAIR):
        assert list(shell.examine(examined(without(environ, pair)))) == []
    assert list(shell.examine(examined({}))) == []


@pytest.mark.parametrize(
    ("value", "severity", "what"),
    [
        ("yes", Severity.ERROR, "it is 'yes', which is no boolean"),
        ("1", Severity.WARNING, "shims of Go understand"),
        ("false", Severity.WARNING, "it is off: a chaincode of this shell dials in plaintext"),
    ],
)
def test_switch_of_tls(
    examined: Examined, environ: dict[str, str], value: str, severity: Severity, what: str
) -> None:
    found = list(shell.examine(examined(environ | {shell.TLS: value})))
    finding = only(found, shell.TLS, severity)
    assert what in finding.what
    assert f"export {shell.TLS}=true" in finding.remedy


@pytest.mark.parametrize("variable", shell.ENCODED_PAIR)
def test_pem_where_base64_is_wanted(
    examined: Examined, environ: dict[str, str], variable: str
) -> None:
    wrong = environ | {variable: environ[variable].removesuffix(".b64")}
    finding = only(list(shell.examine(examined(wrong))), variable)
    assert "holds PEM, not the base64 of PEM" in finding.what
    assert ".b64" in finding.remedy


@pytest.mark.parametrize("variable", shell.PLAIN_PAIR)
def test_base64_where_pem_is_wanted(
    examined: Examined, environ: dict[str, str], variable: str
) -> None:
    wrong = environ | {variable: environ[variable] + ".b64"}
    finding = only(list(shell.examine(examined(wrong))), variable)
    assert "holds the base64 of PEM, not PEM" in finding.what
    assert "without .b64" in finding.remedy


@pytest.mark.parametrize("variable", [shell.ROOT, *shell.ENCODED_PAIR])
def test_file_that_is_not_there(examined: Examined, environ: dict[str, str], variable: str) -> None:
    finding = only(list(shell.examine(examined(environ | {variable: "/no/such/file"}))), variable)
    assert finding.what == "/no/such/file cannot be read (No such file or directory)"


def test_file_that_is_something_else(
    examined: Examined, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_text("see the other file")
    wrong = environ | {shell.ROOT: str(tmp_path / "ca.crt")}
    assert (
        "holds neither PEM nor its base64"
        in only(list(shell.examine(examined(wrong))), shell.ROOT).what
    )


def test_root_of_another_ca(examined: Examined, environ: dict[str, str], tmp_path: Path) -> None:
    other = Home(tmp_path / "other").add_chaincode("mycc") / "ca.crt"
    finding = only(list(shell.examine(examined(environ | {shell.ROOT: str(other)}))), shell.ROOT)
    assert "is from another ca than" in finding.what


def test_half_a_pair(examined: Examined, environ: dict[str, str]) -> None:
    certificate, key = shell.ENCODED_PAIR
    del environ[key]
    finding = only(list(shell.examine(examined(environ))), certificate)
    assert finding.what == f"it is set, and {key} is not"


def test_key_of_another_certificate(
    examined: Examined, home: Home, environ: dict[str, str]
) -> None:
    other = home.add_chaincode("other") / "client.key.b64"
    certificate, key = shell.ENCODED_PAIR
    finding = only(list(shell.examine(examined(environ | {key: str(other)}))), certificate)
    assert "is not its key" in finding.what


def test_certificate_that_cannot_be_parsed(
    examined: Examined, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "client.crt").write_text("-----BEGIN CERTIFICATE-----\nnone\n")
    certificate, _ = shell.PLAIN_PAIR
    wrong = environ | {certificate: str(tmp_path / "client.crt")}
    assert "cannot be used" in only(list(shell.examine(examined(wrong))), certificate).what


def test_name_that_is_not_the_certificates(examined: Examined, environ: dict[str, str]) -> None:
    wrong = environ | {shell.NAME: "yourcc:1.0"}
    for given, file in (
        (wrong, "client.crt"),
        (without(wrong, shell.PLAIN_PAIR), "client.crt.b64"),
    ):
        finding = only(list(shell.examine(examined(given))), shell.NAME)
        assert finding.what.startswith("it registers yourcc, and ")
        assert finding.what.endswith(f"{file} is for mycc")
        assert finding.remedy == "run `selvedge ca issue --chaincode yourcc`"


def test_no_pair_at_all(examined: Examined, environ: dict[str, str]) -> None:
    bare = without(without(environ, shell.PLAIN_PAIR), shell.ENCODED_PAIR)
    finding = only(list(shell.examine(examined(bare))), shell.NAME)
    assert "no client certificate, which the listener demands" in finding.what
