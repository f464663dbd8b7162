"""The hub's settings; what each means stands in core.yaml beside this file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from event_hub.outbox import OutboxConfig
from selvedge_common.config import Duration, Size, load


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
class OutboxLimits:
    """``peer.events.outbox``."""

    max_events: int
    max_bytes: Size

    def __post_init__(self) -> None:
        """Raises ValueError: see `_positive`."""
        _positive(maxEvents=self.max_events, maxBytes=self.max_bytes)


@dataclass(frozen=True)
class Keepalive:
    """``peer.events.keepalive``."""

    interval: Duration
    timeout: Duration
    min_interval: Duration

    def __post_init__(self) -> None:
        """Raises ValueError: see `_positive`."""
        _positive(interval=self.interval, timeout=self.timeout, minInterval=self.min_interval)


@dataclass(frozen=True)
class Events:
    """``peer.events``."""

    address: str
    buffersize: int
    timeout: Duration
    timewindow: Duration
    sendtimeout: Duration
    require_tls_binding: bool
    max_consumers: int
    max_interests: int
    max_recv_msg_size: Size
    max_send_msg_size: Size
    max_concurrent_streams: int
    outbox: OutboxLimits
    keepalive: Keepalive

    def __post_init__(self) -> None:
        """Raises ValueError: see `_positive`."""
        _positive(
            buffersize=self.buffersize,
            timewindow=self.timewindow,
            sendtimeout=self.sendtimeout,
            maxConsumers=self.max_consumers,
            maxInterests=self.max_interests,
            maxRecvMsgSize=self.max_recv_msg_size,
            maxSendMsgSize=self.max_send_msg_size,
            maxConcurrentStreams=self.max_concurrent_streams,
        )


@dataclass(frozen=True)
class Peer:
    """``peer``."""

    id: str
    local_msp_id: str
    file_system_path: Path
    grace_period: Duration
    tls: TLS
    events: Events

    def __post_init__(self) -> None:
        """Raises ValueError: see `_positive`."""
        _positive(gracePeriod=self.grace_period)


@dataclass(frozen=True)
class Reconnect:
    """``source.reconnect``."""

    initial: Duration
    max: Duration

    def __post_init__(self) -> None:
        """Raises ValueError: see `_positive`."""
        _positive(initial=self.initial, max=self.max)


@dataclass(frozen=True)
class Source:
    """``source``."""

    addresses: list[str]
    tls: bool
    channel: str
    start: Literal["oldest", "newest"]
    checkpoint: Path
    max_recv_msg_size: Size
    reconnect: Reconnect

    def __post_init__(self) -> None:
        """Raises ValueError when there is nothing to read from, and see `_positive`."""
        if not self.addresses:
            raise ValueError("addresses is empty; name at least one peer as host:port")
        if not self.channel or "/" in self.channel:
            raise ValueError(f"channel is {self.channel!r}; give the channel's name")
        _positive(maxRecvMsgSize=self.max_recv_msg_size)


@dataclass(frozen=True)
class OperationsTLS:
    """``operations.tls``."""

    enabled: bool


@dataclass(frozen=True)
class Operations:
    """``operations``."""

    listen_address: str
    tls: OperationsTLS


@dataclass(frozen=True)
class CA:
    """``ca``."""

    address: str
    enrolment: Path
    timeout: Duration


@dataclass(frozen=True)
class Logging:
    """``logging``."""

    spec: str
    format: Literal["json", "console"]


@dataclass(frozen=True)
class Config:
    """All settings of the hub."""

    peer: Peer
    source: Source
    operations: Operations
    ca: CA
    logging: Logging

    @property
    def outbox(self) -> OutboxConfig:
        """The bounds of one consumer's outbox."""
        limits = self.peer.events.outbox
        return OutboxConfig(limits.max_events, limits.max_bytes)


def read(file: Path | None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the settings: those of the package, overlaid by ``file`` and by the environment.

    Raises:
        ConfigError: a setting is unknown or has no sense; the message names it.
    """
    return load(Config, resources.files("event_hub") / "core.yaml", file, environ)


def _positive(**settings: float) -> None:
    for name, value in settings.items():
        if value <= 0:
            raise ValueError(f"{name} is {value:g}, but must be above 0")
