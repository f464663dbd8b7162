"""The sections that services have in common; each service's core.yaml explains their keys."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from selvedge_common.config.bounds import HostPort
from selvedge_common.config.values import Duration


@dataclass(frozen=True)
class ClientRoots:
    """``peer.tls.clientRootCAs``."""

    files: list[Path]


@dataclass(frozen=True)
class TLS:
    """``peer.tls``."""

    enabled: bool
    client_auth_required: bool
    client_root_cas: ClientRoots


@dataclass(frozen=True)
class Keepalive:
    """``peer.keepalive`` and ``peer.events.keepalive``."""

    interval: Duration
    timeout: Duration
    min_interval: Duration


@dataclass(frozen=True)
class TLSSwitch:
    """``operations.tls``."""

    enabled: bool


@dataclass(frozen=True)
class Operations:
    """``operations``."""

    listen_address: Annotated[str, HostPort(listening=True)]
    tls: TLSSwitch


@dataclass(frozen=True)
class Enrolling:
    """``ca`` of the services that enrol there."""

    address: str
    enrolment: Path
    timeout: Duration


@dataclass(frozen=True)
class Logging:
    """``logging``."""

    spec: str
    format: Literal["json", "console"]
