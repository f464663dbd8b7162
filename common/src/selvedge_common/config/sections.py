"""The sections that services have in common; each service's core.yaml explains their keys."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from selvedge_common.config.bounds import MOST, HostPort, Range
from selvedge_common.config.values import Duration, Size


@dataclass(frozen=True)
class Files:
    """``peer.tls.clientRootCAs`` and ``peer.tls.revocationLists``."""

    files: list[Path]


@dataclass(frozen=True)
class TLS:
    """``peer.tls``."""

    enabled: bool
    client_auth_required: bool
    client_auth_requested: bool
    client_root_cas: Files
    revocation_lists: Files
    reload_interval: Duration


@dataclass(frozen=True)
class Keepalive:
    """``peer.keepalive`` and ``peer.events.keepalive``."""

    interval: Duration
    timeout: Duration
    min_interval: Duration
    max_strikes: Annotated[int, Range(0, MOST)]


ListenerTransport = Literal["inherit", "native", "grpcio"]
"""What carries one listener: one of its own, or that of ``transport.kind``."""


@dataclass(frozen=True)
class Transport:
    """``transport``; chaincode-support has more keys there."""

    kind: Literal["native", "grpcio"]
    max_connections: int
    max_header_list_size: Size
    receive_window: Size
    receiving_bytes: Size
    pending_bytes: Size
    total_pending_bytes: Size
    unread_bytes: Size
    overhead_bytes: Size
    resets: int
    handshake_timeout: Duration
    channelz: bool


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
