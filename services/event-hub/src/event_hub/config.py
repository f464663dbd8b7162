"""The hub's settings; what each means stands in core.yaml beside this file."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from event_hub.outbox import OutboxConfig
from selvedge_common.config import Duration, Size, load

# gRPC and protobuf count bytes, streams and milliseconds in 32 bits with a sign. Below the smallest
# a unit was forgotten: no signed message is that small, and nobody that quick.
SMALLEST, LARGEST = 1024, 2**31 - 1
SHORTEST, LONGEST = 0.01, 576 * 3600.0

# Fabric's names of channels (common/configtx), and their length.
CHANNEL = re.compile(r"[a-zA-Z0-9.-]{1,249}")


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
        """Raises ValueError: see `_sane`."""
        _sane(maxEvents=self.max_events, maxBytes=self.max_bytes)


@dataclass(frozen=True)
class Keepalive:
    """``peer.events.keepalive``."""

    interval: Duration
    timeout: Duration
    min_interval: Duration

    def __post_init__(self) -> None:
        """Raises ValueError: see `_sane`."""
        _sane(interval=self.interval, timeout=self.timeout, minInterval=self.min_interval)


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
        """Raises ValueError: see `_sane`."""
        _sane(
            buffersize=self.buffersize,
            timewindow=self.timewindow,
            sendtimeout=self.sendtimeout,
            maxConsumers=self.max_consumers,
            maxInterests=self.max_interests,
            maxRecvMsgSize=self.max_recv_msg_size,
            maxSendMsgSize=self.max_send_msg_size,
            maxConcurrentStreams=self.max_concurrent_streams,
        )
        # Unlike the others it may be 0 or negative, both of which mean something.
        if self.timeout > LONGEST:
            raise ValueError(f'timeout is {self.timeout:g} s, but must be at most "576h"')


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
        """Raises ValueError: see `_sane`."""
        if not self.local_msp_id.strip():
            raise ValueError("localMspId is blank, but must be the MSP id of this organisation")
        _sane(gracePeriod=self.grace_period)


@dataclass(frozen=True)
class Reconnect:
    """``source.reconnect``."""

    initial: Duration
    max: Duration

    def __post_init__(self) -> None:
        """Raises ValueError: see `_sane`."""
        _sane(initial=self.initial, max=self.max)
        if self.initial > self.max:
            raise ValueError(
                f"initial is {self.initial:g} s, but must not be above max, {self.max:g} s"
            )


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
        """Raises ValueError: there is nothing to read from; and see `_sane`."""
        if not self.addresses:
            raise ValueError("addresses is empty; name at least one peer as host:port")
        for address in self.addresses:
            _check_peer(address)
        if not CHANNEL.fullmatch(self.channel):
            raise ValueError(
                f"channel is {self.channel!r}, but must be a channel's name: at most 249 letters, "
                "digits, dots and dashes"
            )
        _sane(maxRecvMsgSize=self.max_recv_msg_size)


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

    def __post_init__(self) -> None:
        """Raises ValueError: see `_sane`."""
        _sane(timeout=self.timeout)


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
        events = self.peer.events
        return OutboxConfig(
            events.outbox.max_events, events.outbox.max_bytes, events.max_send_msg_size
        )


def read(file: Path | None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the settings: those of the package, overlaid by ``file`` and by the environment.

    Raises:
        ConfigError: a setting is unknown or has no sense; the message names it.
    """
    return load(Config, resources.files("event_hub") / "core.yaml", file, environ)


def _sane(**settings: float) -> None:
    """Check durations, sizes and counts by their type.

    Raises:
        ValueError: a duration is not from 10 ms to 24 days, a size not from 1 KB to 2 GB, or a
            count not from 1 to 2**31 - 1.
    """
    for name, value in settings.items():
        if isinstance(value, Duration):
            sane, expected = SHORTEST <= value <= LONGEST, 'from "10ms" to "576h"'
            given = f"{value:g} s"
        elif isinstance(value, Size):
            sane, expected = SMALLEST <= value <= LARGEST, f"from 1KB to {LARGEST} bytes"
            given = f"{value} bytes"
        else:
            sane, expected = 1 <= value <= LARGEST, f"from 1 to {LARGEST}"
            given = f"{value:g}"
        if not sane:
            raise ValueError(f"{name} is {given}, but must be {expected}")


def _check_peer(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"addresses has {address!r}, but must name peers as host:port")
