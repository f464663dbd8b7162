"""The hub's settings; what each means stands in core.yaml beside this file."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from event_hub.outbox import OutboxConfig
from selvedge_common.config import LONGEST, Duration, HostPort, Like, Range, Size, load
from selvedge_common.config.sections import (
    TLS,
    Enrolling,
    Keepalive,
    Logging,
    Operations,
    Transport,
)

# Fabric's names of channels (common/configtx), and their length.
CHANNEL = re.compile(r"[a-zA-Z0-9.-]{1,249}")


@dataclass(frozen=True)
class OutboxLimits:
    """``peer.events.outbox``."""

    max_events: int
    max_bytes: Size
    total_bytes: Size


@dataclass(frozen=True)
class Events:
    """``peer.events``."""

    address: str
    buffersize: int
    buffer_bytes: Size
    recent_bytes: Size
    # 0 and less mean something, unlike elsewhere.
    timeout: Annotated[Duration, Range(f"-{LONGEST}", LONGEST)]
    timewindow: Duration
    sendtimeout: Duration
    require_tls_binding: bool
    max_consumers: int
    max_interests: int
    max_interest_bytes: Size
    max_producers: int
    max_watchers: int
    max_recv_msg_size: Size
    max_send_msg_size: Size
    max_concurrent_streams: int
    outbox: OutboxLimits
    keepalive: Keepalive


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
        """Raises ValueError: the organisation has no name."""
        if not self.local_msp_id.strip():
            raise ValueError("localMspId is blank, but must be the MSP id of this organisation")


@dataclass(frozen=True)
class Reconnect:
    """``source.reconnect``."""

    initial: Duration
    max: Duration

    def __post_init__(self) -> None:
        """Raises ValueError: the first wait is longer than the longest."""
        if self.initial > self.max:
            raise ValueError(
                f"initial is {self.initial:g} s, but must not be above max, {self.max:g} s"
            )


@dataclass(frozen=True)
class SourceTLS:
    """``source.tls``."""

    enabled: bool
    root_cas: list[Path]
    certificate: Path | None
    key: Path | None
    server_name_override: str

    def __post_init__(self) -> None:
        """Raises ValueError: a certificate has no key, or a key no certificate."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: give both, or neither")


@dataclass(frozen=True)
class SourceMSP:
    """``source.msp``."""

    id: str
    folder: Path | None

    def __post_init__(self) -> None:
        """Raises ValueError: an identity without its organisation, or the reverse."""
        if bool(self.id) != (self.folder is not None):
            raise ValueError("id and folder go together: give both, or neither")


@dataclass(frozen=True)
class Source:
    """``source``, and each of ``sources``."""

    kind: Literal["peer", "orderer"]
    addresses: list[Annotated[str, HostPort()]]
    channels: list[str]
    tls: SourceTLS
    msp: SourceMSP
    start: Literal["oldest", "newest"]
    checkpoint: Path
    max_recv_msg_size: Size
    history_bytes: Size
    answer_timeout: Duration
    compare_interval: Annotated[Duration, Range("10ms", LONGEST, or_zero=True)]
    reconnect: Reconnect

    def __post_init__(self) -> None:
        """Raises ValueError: there is nothing to read, or nothing to read from."""
        if not self.addresses:
            raise ValueError("addresses is empty; name at least one as host:port")
        if len(set(self.addresses)) < len(self.addresses):
            raise ValueError("addresses names an address twice")
        if not self.channels:
            raise ValueError("channels is empty; name at least one")
        for channel in self.channels:
            if not CHANNEL.fullmatch(channel):
                raise ValueError(
                    f"channels has {channel!r}, but must have names of channels: at most 249 "
                    "letters, digits, dots and dashes"
                )
        if len(set(self.channels)) < len(self.channels):
            raise ValueError("channels names a channel twice")


@dataclass(frozen=True)
class Config:
    """All settings of the hub."""

    peer: Peer
    transport: Transport
    source: Source
    sources: Annotated[list[Source], Like("source")]
    operations: Operations
    ca: Enrolling
    logging: Logging

    def __post_init__(self) -> None:
        """Raises ValueError: a channel comes from two sources."""
        found: dict[str, str] = {}
        for key, source in self.all_sources.items():
            for channel in source.channels:
                other = found.setdefault(channel, key)
                if other != key:
                    raise ValueError(
                        f"{key}.channels has {channel!r}, and {other}.channels has it too; a "
                        "channel comes from one source: name it in one, and its further peers in "
                        "the addresses of that"
                    )

    @property
    def all_sources(self) -> Mapping[str, Source]:
        """``source`` and each of ``sources``, by its key."""
        others = {f"sources[{index}]": each for index, each in enumerate(self.sources)}
        return {"source": self.source, **others}

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
