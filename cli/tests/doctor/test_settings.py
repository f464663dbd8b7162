"""Variables that a service reads, and those that were meant for one."""

from __future__ import annotations

import pytest
from cli.tests.doctor.conftest import Examined
from cli.tests.homes import Home

from selvedge_cli.ca import chaincode_environment
from selvedge_cli.doctor import settings
from selvedge_cli.doctor.findings import Severity
from selvedge_cli.doctor.shell import CHAINCODE_VARIABLES


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("CORE_CHAINCODE_EXECUTETIMEOT", "CORE_CHAINCODE_EXECUTETIMEOUT"),
        ("CORE_CHAINCODE_EXECUTE_TIMEOUT", "CORE_CHAINCODE_EXECUTETIMEOUT"),
        ("CORE_PEER_EVENT_BUFFERSIZE", "CORE_PEER_EVENTS_BUFFERSIZE"),
        ("CORE_CA_LIFETIME_ROOT", "CORE_CA_LIFETIMES_ROOT"),
        ("CORE_CHAINCODE_IDNAME", "CORE_CHAINCODE_ID_NAME"),
        ("CORE_PEER_TLS_ROOT_CERT_FILE", "CORE_PEER_TLS_ROOTCERT_FILE"),
    ],
)
def test_misspelt_variable_is_told_with_the_one_that_was_meant(
    examined: Examined, variable: str, meant: str
) -> None:
    (finding,) = settings.examine(examined({variable: "1"}))
    assert (finding.where, finding.severity) == (variable, Severity.WARNING)
    assert finding.remedy == f"perhaps {meant} was meant"


def test_variable_of_a_service_is_noted_where_it_changes_it(examined: Examined) -> None:
    (finding,) = settings.examine(examined({"CORE_PEER_LOCALMSPID": "Org2MSP"}))
    assert (finding.where, finding.severity) == ("CORE_PEER_LOCALMSPID", Severity.NOTE)
    assert finding.what == (
        "a setting of chaincode-support, event-hub that is started from this shell: 'Org2MSP'"
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CORE_PEER_LOCALMSPID", "Org1MSP"),
        ("CORE_PEER_TLS_ENABLED", "true"),
        ("CORE_CHAINCODE_EXECUTETIMEOT", ""),
        ("CORE_CHAINCODE_ID_NAME", "mycc:1.0"),
        ("CORE_PEER_GOSSIP_BOOTSTRAP", "127.0.0.1:7051"),
        ("CORE_LEDGER_STATE_STATEDATABASE", "CouchDB"),
        ("CORE_SERVICE_HOST", "10.0.0.1"),
        ("CORE_CA_SERVICE_PORT", "7055"),
        ("HOME", "/root"),
    ],
)
def test_other_variables_are_left_alone(examined: Examined, variable: str, value: str) -> None:
    assert list(settings.examine(examined({variable: value}))) == []


def test_shell_of_a_chaincode_is_not_taken_for_settings(examined: Examined, home: Home) -> None:
    environ = chaincode_environment(home.path, home.add_chaincode("mycc"), "mycc")
    assert {*environ} == {*CHAINCODE_VARIABLES}
    assert list(settings.examine(examined(environ))) == []
