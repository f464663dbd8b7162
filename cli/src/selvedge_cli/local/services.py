"""What each service is started with: its command, and its variables for paths and addresses."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selvedge_cli.addresses import Addresses, port_of
from selvedge_cli.options import CHANNEL

LOOPBACK = "127.0.0.1"
CHAINCODE = "asset-transfer"
"""The sample chaincode, which the ca has an enrolment file ready for."""


@dataclass(frozen=True)
class Service:
    """One process.

    Attributes:
        name: of the service, its log and its folder.
        command: what to run.
        environment: variables on top of those it inherits.
        listeners: what listens, with its address.
        operations: address of its operations endpoint, where it has one.
        folder: its volume; `tls/ca.crt` there is the root of its certificates.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    listeners: Mapping[str, str]
    operations: str | None
    folder: Path


# What `selvedge ca issue` has a person export for a chaincode, and Fabric's `peer` wants exported,
# means something else to a service: it would serve in plaintext, or for another organisation.
_OF_CHAINCODES = ("CORE_PEER_TLS_", "CORE_TLS_")
_NOT_HANDED_ON = {
    "CORE_CHAINCODE_ID_NAME",
    "CORE_PEER_ADDRESS",
    "CORE_PEER_LOCALMSPID",
    # Here the services are asked for their health over HTTPS.
    "CORE_OPERATIONS_TLS_ENABLED",
}

USERS = {"user1": ("user", "tls-client"), "admin": ("admin", "tls-client")}
"""Users that are there from the start, and the profiles of their certificates."""
MEMBERS = {
    "chaincode-support": ("tls-server", "tls-client", "peer", "orderer"),
    "event-hub": ("tls-server", "tls-client", "peer"),
    CHAINCODE: ("chaincode",),
    **USERS,
}
"""Who finds an enrolment file in the home, and the profiles that it allows."""


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of this process that a service gets: not those meant for a chaincode."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(_OF_CHAINCODES) and name not in _NOT_HANDED_ON
    }


def ca_settings() -> str:
    """The ca's settings beyond its variables: the members. YAML, in its JSON form."""
    members = [
        {"name": name, "folder": name, "profiles": profiles, "extraSans": []}
        for name, profiles in MEMBERS.items()
    ]
    return json.dumps({"enrolment": {"members": members}}, indent=2) + "\n"


def services(home: Path, addresses: Addresses, channel: str) -> list[Service]:
    """The ca, chaincode-support and event-hub of a home, listening on this machine only.

    Args:
        home: an absolute path; `chaincode-support.yaml` and `event-hub.yaml` in it are their
            settings, where they exist.
    """
    return [
        _ca(home, addresses),
        _chaincode_support(home, addresses, channel),
        _hub(home, addresses, channel),
    ]


def sample_chaincode(sample: Path, material: Path, addresses: Addresses) -> Service:
    """The sample chaincode with the environment that Fabric gives a chaincode.

    Args:
        sample: the file to run.
        material: folder of its certificate, key and root.
    """
    return Service(
        name=CHAINCODE,
        command=(sys.executable, str(sample)),
        environment={
            "CORE_CHAINCODE_ID_NAME": f"{CHAINCODE}:1.0",
            "CORE_PEER_ADDRESS": addresses.chaincode,
            "CORE_PEER_TLS_ENABLED": "true",
            "CORE_PEER_TLS_ROOTCERT_FILE": str(material / "ca.crt"),
            "CORE_TLS_CLIENT_CERT_FILE": str(material / "client.crt"),
            "CORE_TLS_CLIENT_KEY_FILE": str(material / "client.key"),
        },
        listeners={},
        operations=None,
        folder=material,
    )


def enrolment_file(home: Path, member: str) -> Path:
    """Where the ca leaves a member's one-time tokens."""
    return home / "enrol" / member / "enrolment.json"


def _ca(home: Path, addresses: Addresses) -> Service:
    return Service(
        name="ca",
        command=(
            *(sys.executable, "-m", "certificate_authority", "serve"),
            *("--config", str(home / "ca.yaml")),
        ),
        environment={
            "CORE_CA_LISTENADDRESS": _bound(addresses.ca),
            "CORE_CA_ADDRESS": addresses.ca,
            "CORE_CA_FILESYSTEMPATH": str(home / "ca"),
            "CORE_ENROLMENT_FOLDER": str(home / "enrol"),
            **_operations(addresses.ca_operations),
        },
        listeners={"certificates": addresses.ca},
        operations=addresses.ca_operations,
        folder=home / "ca",
    )


def _chaincode_support(home: Path, addresses: Addresses, channel: str) -> Service:
    name = "chaincode-support"
    return Service(
        name=name,
        command=(sys.executable, "-m", "chaincode_support", *_settings(home, name)),
        environment={
            "CORE_PEER_ADDRESS": addresses.peer,
            "CORE_PEER_CHAINCODEADDRESS": addresses.chaincode,
            "CORE_PEER_LISTENADDRESS": _bound(addresses.peer),
            "CORE_PEER_CHAINCODELISTENADDRESS": _bound(addresses.chaincode),
            "CORE_PEER_FILESYSTEMPATH": str(home / name),
            "CORE_ORDERER_LISTENADDRESS": _bound(addresses.orderer),
            "CORE_ORDERER_ADDRESS": addresses.orderer,
            # The settings may have more channels.
            **({} if channel == CHANNEL else {"CORE_CHANNEL_NAMES": channel}),
            **_enrolment(home, name, addresses),
            **_operations(addresses.peer_operations),
        },
        listeners={
            "peer API": addresses.peer,
            "chaincode listener": addresses.chaincode,
            "ordering": addresses.orderer,
        },
        operations=addresses.peer_operations,
        folder=home / name,
    )


def _hub(home: Path, addresses: Addresses, channel: str) -> Service:
    name = "event-hub"
    return Service(
        name=name,
        command=(sys.executable, "-m", "event_hub", *_settings(home, name)),
        environment={
            "CORE_PEER_EVENTS_ADDRESS": _bound(addresses.events),
            "CORE_PEER_FILESYSTEMPATH": str(home / name),
            "CORE_SOURCE_ADDRESSES": addresses.peer,
            "CORE_SOURCE_CHANNELS": channel,
            **_enrolment(home, name, addresses),
            **_operations(addresses.events_operations),
        },
        listeners={"events": addresses.events},
        operations=addresses.events_operations,
        folder=home / name,
    )


def _bound(address: str) -> str:
    return f"{LOOPBACK}:{port_of(address)}"


def _settings(home: Path, service: str) -> list[str]:
    file = home / f"{service}.yaml"
    return ["--config", str(file)] if file.exists() else []


def _operations(address: str) -> dict[str, str]:
    return {
        "CORE_OPERATIONS_LISTENADDRESS": _bound(address),
        # The logs are files that a person opens.
        "CORE_LOGGING_FORMAT": "console",
    }


def _enrolment(home: Path, member: str, addresses: Addresses) -> dict[str, str]:
    return {
        "CORE_CA_ADDRESS": addresses.ca,
        "CORE_CA_ENROLMENT": str(enrolment_file(home, member)),
    }
